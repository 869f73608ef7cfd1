// SPDX-License-Identifier: Apache-2.0
#include "session.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 32768u
#define QUARTER (CONTROL_OUT_WINDOW / 4)

/* --- to the broker --------------------------------------------------------------------------------------------------- */

/* The broker always reads: it has room for all that a client has credit for. That it is gone, reading says. */
static void put(struct session *s, int type, int stream, const void *content, size_t length)
{
	uint8_t frame[CONTROL_HEADER + CHUNK];
	const struct control_header header = {(uint32_t)length, (uint8_t)type, (uint8_t)stream, 0};
	memcpy(frame, &header, CONTROL_HEADER);
	memcpy(frame + CONTROL_HEADER, content, length);
	length += CONTROL_HEADER;
	for (size_t at = 0; at < length;) {
		ssize_t sent = send(s->fd, frame + at, length - at, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return;
		at += (size_t)sent;
	}
}

static uint32_t credit(const struct session *s)
{
	return CONTROL_IN_WINDOW + s->granted - s->spent;
}

static void pass_input(struct session *s)
{
	uint8_t bytes[CHUNK];
	size_t most = credit(s) - CONTROL_HEADER < CHUNK ? credit(s) - CONTROL_HEADER : CHUNK;
	ssize_t got = read(s->in, bytes, most);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		s->in = -1;
		put(s, CONTROL_CLOSE, 0, "", 0);
		return;
	}
	s->spent += CONTROL_HEADER + (uint32_t)got;
	put(s, CONTROL_DATA, 0, bytes, (size_t)got);
}

static void pass_size(struct session *s)
{
	struct winsize size;
	if (!ioctl(s->terminal, TIOCGWINSZ, &size))
		put(s, CONTROL_WINDOW, 0, (const uint16_t[]){size.ws_row, size.ws_col}, 4);
}

static void pass_signal(struct session *s)
{
	struct signalfd_siginfo info;
	if (read(s->signals, &info, sizeof info) != sizeof info)
		return;
	if (info.ssi_signo == SIGWINCH && s->terminal >= 0)
		pass_size(s);
	else
		put(s, CONTROL_SIGNAL, 0, &(const uint8_t){(uint8_t)info.ssi_signo}, 1);
}

/* --- from the broker ------------------------------------------------------------------------------------------------- */

/* Signals are passed on while the reader makes this process wait. Returns false if it is gone. */
static bool write_all(struct session *s, int fd, const uint8_t *bytes, size_t length)
{
	while (length) {
		struct pollfd events[] = {{.fd = fd, .events = POLLOUT}, {.fd = s->signals, .events = POLLIN}};
		if (poll(events, 2, -1) < 0 && errno != EINTR)
			return false;
		if (events[1].revents)
			pass_signal(s);
		if (!events[0].revents)
			continue;
		/* a ready pipe has room for this much, so write() does not wait */
		ssize_t written = write(fd, bytes, length < PIPE_BUF ? length : PIPE_BUF);
		if (written < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (written <= 0)
			return false;
		bytes += written;
		length -= (size_t)written;
	}
	return true;
}

/* Returns false if nobody reads the output. A terminal that was hung up is none: the program learns of it by SIGHUP. */
static bool take_data(struct session *s, int i, const uint8_t *content, size_t length)
{
	if (s->out[i] >= 0 && !write_all(s, s->out[i], content, length)) {
		if (s->terminal < 0)
			return false;
		s->out[i] = -1;
	}
	s->taken[i] += CONTROL_HEADER + (uint32_t)length;
	if (s->taken[i] < QUARTER)
		return true;
	put(s, CONTROL_CREDIT, i + 1, &s->taken[i], sizeof s->taken[i]);
	s->taken[i] = 0;
	return true;
}

/* Returns false unless a whole frame is there. */
static bool has_frame(const struct session *s, struct control_header *h)
{
	if (s->have - s->used < CONTROL_HEADER)
		return false;
	memcpy(h, s->bytes + s->used, CONTROL_HEADER);
	return h->length <= CONTROL_CONTENT_MAX && s->have - s->used >= CONTROL_HEADER + h->length;
}

/* Returns false if there is no more, or a frame that is none. */
static bool receive(struct session *s)
{
	memmove(s->bytes, s->bytes + s->used, s->have - s->used);
	s->have -= s->used;
	s->used = 0;
	if (s->have == sizeof s->bytes)
		return false;
	ssize_t got = recv(s->fd, s->bytes + s->have, sizeof s->bytes - s->have, 0);
	if (got > 0)
		s->have += (size_t)got;
	return got > 0 || (got < 0 && errno == EINTR);
}

/* Returns true with *event if the caller has to know about the frame. */
static bool take_frame(struct session *s, const struct control_header *h, uint32_t numbers[2], enum session_event *event)
{
	const uint8_t *content = s->bytes + s->used + CONTROL_HEADER;
	s->used += CONTROL_HEADER + h->length;
	numbers[0] = numbers[1] = 0;
	memcpy(numbers, content, h->length < 8 ? h->length : 8);
	*event = SESSION_LOST;
	switch (h->type) {
	case CONTROL_STARTED:
		*event = SESSION_STARTED;
		if (s->started)
			*event = SESSION_LOST;
		s->started = true;
		return true;
	case CONTROL_FAILED:
		*event = SESSION_FAILED;
		return true;
	case CONTROL_ERROR:
		*event = SESSION_REFUSED;
		return true;
	case CONTROL_EXIT:
		*event = SESSION_EXITED;
		return true;
	case CONTROL_DATA:
		if (!s->started || h->stream < 1 || h->stream > 2)
			return true;
		*event = SESSION_UNHEARD;
		return !take_data(s, h->stream - 1, content, h->length);
	case CONTROL_CREDIT:
		/* no more than was spent */
		if (numbers[0] > s->spent - s->granted)
			return true;
		s->granted += numbers[0];
		return false;
	case CONTROL_CLOSE:
		return false;
	default:
		return true;
	}
}

uint64_t session_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* -1: forever; 0: it is over. */
static int time_left(const struct session *s)
{
	uint64_t now = s->deadline ? session_now() : 0;
	return !s->deadline ? -1 : now >= s->deadline ? 0 : (int)(s->deadline - now);
}

enum session_event session_next(struct session *s, uint32_t numbers[2])
{
	enum session_event event;
	struct control_header header;
	for (;;) {
		int left = time_left(s);
		if (!left)
			return SESSION_LATE;
		if (has_frame(s, &header)) {
			if (take_frame(s, &header, numbers, &event))
				return event;
			continue;
		}
		bool reads = s->started && s->in >= 0 && credit(s) > CONTROL_HEADER;
		struct pollfd events[] = {{.fd = s->fd, .events = POLLIN},
					  {.fd = s->started ? s->signals : -1, .events = POLLIN},
					  {.fd = reads ? s->in : -1, .events = POLLIN}};
		if (poll(events, 3, left) < 0) {
			if (errno == EINTR)
				continue;
			return SESSION_LOST;
		}
		if (events[1].revents)
			pass_signal(s);
		if (events[2].revents)
			pass_input(s);
		if (events[0].revents && !receive(s))
			return SESSION_LOST;
	}
}
