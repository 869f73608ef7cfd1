// SPDX-License-Identifier: Apache-2.0
#include "agent.h"

#include "agent_start.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define CHANNEL "/dev/host/control"
/* Room that data must leave for answers, and that must be free before another frame is handled. */
#define ROOM 4096
#define OUT_SIZE (CONTROL_FRAME_MAX + 2 * ROOM)

struct agent {
	int fd;
	const struct settings *settings;
	struct session sessions[CONTROL_SESSIONS];
	uint8_t in[CONTROL_FRAME_MAX];
	uint8_t out[OUT_SIZE];
	size_t have, start, end; /* bytes in `in`; the waiting bytes of `out` are [start, end) */
};

/* Not part of the program: its pages would cost time at each boot. */
static struct agent *agent;

static void give_up(const char *reason)
{
	if (reason)
		log_error(CHANNEL, reason);
	for (int i = 0; i < CONTROL_SESSIONS; i++)
		if (agent->sessions[i].used)
			session_end(&agent->sessions[i]);
	if (agent->fd >= 0)
		close(agent->fd);
	free(agent);
	agent = NULL;
}

/* --- to the host ---------------------------------------------------------------------------------------------------- */

static size_t room(void)
{
	return OUT_SIZE - agent->end;
}

/* Returns the place for the content. There must be room. */
static uint8_t *put_header(int type, int stream, int id, size_t length)
{
	const struct control_header header = {(uint32_t)length, (uint8_t)type, (uint8_t)stream, (uint16_t)id};
	uint8_t *at = agent->out + agent->end;
	memcpy(at, &header, CONTROL_HEADER);
	agent->end += CONTROL_HEADER + length;
	return at + CONTROL_HEADER;
}

static void put_number(int type, int stream, int id, uint32_t number)
{
	memcpy(put_header(type, stream, id, sizeof number), &number, sizeof number);
}

/* Returns false if the channel is gone, with errno. */
static bool flush(void)
{
	struct agent *a = agent;
	errno = 0;
	while (a->start < a->end) {
		ssize_t written = write(a->fd, a->out + a->start, a->end - a->start);
		if (written < 0 && errno == EAGAIN)
			break;
		if (written <= 0)
			return false;
		a->start += (size_t)written;
	}
	if (a->start)
		memmove(a->out, a->out + a->start, a->end - a->start);
	a->end -= a->start;
	a->start = 0;
	return true;
}

/* --- sessions ------------------------------------------------------------------------------------------------------- */

static void close_output(struct session *s, int i)
{
	if (s->out[i] >= 0)
		close(s->out[i]);
	s->out[i] = -1;
}

/* At most one frame. After the program has ended, only the bytes that it left in a pipe are passed on, not later ones. */
static void pass_output(struct session *s, int id, int i)
{
	if (s->out[i] >= 0 && (s->ready[i] || s->ended || s->file) && s->credit[i] > CONTROL_HEADER &&
	    room() > 2 * ROOM) {
		size_t most = room() - ROOM - CONTROL_HEADER;
		if (most > CONTROL_CONTENT_MAX)
			most = CONTROL_CONTENT_MAX;
		if (most > s->credit[i] - CONTROL_HEADER)
			most = s->credit[i] - CONTROL_HEADER;
		if (s->ended && most > s->left[i])
			most = s->left[i];
		ssize_t got = most ? read(s->out[i], agent->out + agent->end + CONTROL_HEADER, most) : 0;
		if (got > 0) {
			put_header(CONTROL_DATA, i + 1, id, (size_t)got);
			s->credit[i] -= CONTROL_HEADER + (uint32_t)got;
			s->left[i] -= s->ended ? (size_t)got : 0;
		} else if (got == 0 || errno != EAGAIN || s->ended) {
			if (got < 0 && s->file)
				s->status = errno;
			close_output(s, i);
		}
	}
	s->ready[i] = false;
	if (s->out[i] < 0 && !s->closed[i] && room() > ROOM) {
		put_header(CONTROL_CLOSE, i + 1, id, 0);
		s->closed[i] = true;
	}
}

static void pass(struct session *s, int id)
{
	session_pass_input(s);
	if (s->consumed >= CONTROL_IN_WINDOW / 4 && room() > ROOM) {
		put_number(CONTROL_CREDIT, 0, id, s->consumed);
		s->consumed = 0;
	}
	for (int i = 0; i < 2; i++)
		pass_output(s, id, i);
	if (s->file && s->in < 0 && s->out[0] < 0)
		s->ended = true;
	if (s->ended && s->closed[0] && s->closed[1] && room() > ROOM) {
		put_number(CONTROL_EXIT, 0, id, (uint32_t)s->status);
		session_end(s);
	}
}

void agent_ended(pid_t pid, int raw)
{
	for (int i = 0; agent && i < CONTROL_SESSIONS; i++) {
		struct session *s = &agent->sessions[i];
		if (!s->used || s->file || s->ended || s->pid != pid)
			continue;
		session_ended(s, raw);
	}
}

/* --- from the host -------------------------------------------------------------------------------------------------- */

static void start(struct session *s, int id, uint8_t *content, size_t length)
{
	uint32_t value = 0, stage;
	uint32_t error = (uint32_t)session_start(s, agent->settings, content, length, &value, &stage);
	if (error) {
		uint8_t *at = put_header(CONTROL_FAILED, 0, id, 2 * sizeof error);
		memcpy(at, &stage, sizeof stage);
		memcpy(at + sizeof stage, &error, sizeof error);
	} else {
		put_number(CONTROL_STARTED, 0, id, value);
	}
}

static void hang_up(struct session *s)
{
	/* the number of a process that has ended may belong to another process */
	if (!s->file && !s->ended)
		kill(-s->pid, s->engine ? SIGKILL : SIGHUP);
	session_end(s);
}

/* Returns false if the frame is invalid. */
static bool handle(const struct control_header *h, uint8_t *content)
{
	if (h->id >= CONTROL_SESSIONS)
		return false;
	struct session *s = &agent->sessions[h->id];
	if (h->type == CONTROL_START && !s->used) {
		start(s, h->id, content, h->length);
		return true;
	}
	if (!s->used) /* it has ended, and the host did not know yet */
		return h->type != CONTROL_START;
	uint32_t number = 0;
	memcpy(&number, content, h->length < sizeof number ? h->length : sizeof number);
	switch (h->type) {
	case CONTROL_DATA:
		session_take_input(s, content, h->length);
		return true;
	case CONTROL_CLOSE:
		s->input_closed = true;
		return true;
	case CONTROL_CREDIT:
		if (h->stream == 1 || h->stream == 2)
			s->credit[h->stream - 1] += number;
		return true;
	case CONTROL_SIGNAL:
		if (!s->file && !s->ended)
			kill(s->engine ? s->pid : -s->pid, (int)(number & 0xff));
		return true;
	case CONTROL_WINDOW:
		if (!s->file && s->out[0] >= 0)
			ioctl(s->out[0], TIOCSWINSZ,
			      &(struct winsize){.ws_row = (uint16_t)number, .ws_col = (uint16_t)(number >> 16)});
		return true;
	case CONTROL_HANGUP:
		hang_up(s);
		put_number(CONTROL_EXIT, 0, h->id, 0);
		return true;
	default:
		return false;
	}
}

/* Returns false if the channel is gone or violates the protocol. */
static bool take_frames(void)
{
	struct agent *a = agent;
	size_t at = 0;
	while (a->have - at >= CONTROL_HEADER && room() > ROOM) {
		struct control_header h;
		memcpy(&h, a->in + at, CONTROL_HEADER);
		if (h.length > CONTROL_CONTENT_MAX)
			return false;
		if (a->have - at < CONTROL_HEADER + h.length)
			break;
		if (!handle(&h, a->in + at + CONTROL_HEADER))
			return false;
		at += CONTROL_HEADER + h.length;
	}
	a->have -= at;
	if (at)
		memmove(a->in, a->in + at, a->have);
	return true;
}

/* Returns false if the channel is gone, with errno. */
static bool receive(void)
{
	ssize_t got = 0;
	errno = 0;
	if (agent->have < sizeof agent->in)
		got = read(agent->fd, agent->in + agent->have, sizeof agent->in - agent->have);
	if (got > 0)
		agent->have += (size_t)got;
	return got > 0 || (agent->have == sizeof agent->in && !got) || (got < 0 && errno == EAGAIN);
}

/* --- the loop ------------------------------------------------------------------------------------------------------- */

/* Returns false if there is none. */
static bool open_channel(void)
{
	agent->fd = open(CHANNEL, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (agent->fd < 0)
		return false;
	put_number(CONTROL_HELLO, 0, 0, CONTROL_VERSION);
	return true;
}

/*
 * The channel is gone. A restored VM has another one: its host knows of no session, and part of a frame that came from the
 * host of the saved VM, or was meant for it, is nobody's.
 */
static void lose_channel(void)
{
	if (errno != ESTALE) {
		give_up(NULL);
		return;
	}
	for (int i = 0; i < CONTROL_SESSIONS; i++)
		if (agent->sessions[i].used)
			hang_up(&agent->sessions[i]);
	agent->have = agent->start = agent->end = 0;
	close(agent->fd);
	if (!open_channel() || !flush())
		give_up(strerror(errno));
}

void agent_work(void)
{
	if (!agent)
		return;
	if (!receive() || !flush()) {
		lose_channel();
		return;
	}
	if (!take_frames()) {
		give_up("invalid message");
		return;
	}
	for (int i = 0; i < CONTROL_SESSIONS; i++)
		if (agent->sessions[i].used)
			pass(&agent->sessions[i], i);
	if (!flush())
		lose_channel();
}

struct watched {
	struct pollfd fds[1 + 3 * CONTROL_SESSIONS];
	bool *ready[1 + 3 * CONTROL_SESSIONS];
	nfds_t count;
};

static void look_at(struct watched *w, int fd, short events, bool *ready)
{
	w->fds[w->count] = (struct pollfd){.fd = fd, .events = events};
	w->ready[w->count++] = ready;
}

/* Returns true if a frame waits only because there was no room. */
static bool holds_frame(void)
{
	struct control_header h;
	if (agent->have < CONTROL_HEADER)
		return false;
	memcpy(&h, agent->in, CONTROL_HEADER);
	return agent->have >= CONTROL_HEADER + h.length;
}

/* Returns true if something can be done at once. */
static bool look_at_sessions(struct watched *w)
{
	bool blocked = agent->end > agent->start, more = !blocked && holds_frame();
	for (int i = 0; i < CONTROL_SESSIONS; i++) {
		struct session *s = &agent->sessions[i];
		if (!s->used)
			continue;
		if (s->in >= 0 && s->start < s->end)
			look_at(w, s->in, POLLOUT, NULL);
		for (int n = 0; n < 2 && !blocked; n++) {
			more = more || (s->out[n] < 0 && !s->closed[n]);
			if (s->out[n] < 0 || s->credit[n] <= CONTROL_HEADER)
				continue;
			more = more || s->ended; /* its remaining output */
			look_at(w, s->out[n], POLLIN, &s->ready[n]);
		}
		/* answers for which there was no room */
		more = more || (!blocked && s->consumed >= CONTROL_IN_WINDOW / 4);
		more = more || (s->ended && !blocked && s->closed[0] && s->closed[1]);
	}
	return more;
}

void agent_wait(const sigset_t *mask)
{
	static const struct timespec at_once;
	struct watched w = {.count = 0};
	if (!agent) {
		sigsuspend(mask);
		return;
	}
	int events = (agent->have < sizeof agent->in ? POLLIN : 0) | (agent->end > agent->start ? POLLOUT : 0);
	look_at(&w, agent->fd, (short)events, NULL);
	bool more = look_at_sessions(&w);
	if (ppoll(w.fds, w.count, more ? &at_once : NULL, mask) > 0)
		for (nfds_t i = 1; i < w.count; i++)
			if (w.ready[i] && w.fds[i].revents)
				*w.ready[i] = true;
	agent_work();
}

void agent_open(const struct settings *s)
{
	agent = calloc(1, sizeof *agent);
	if (!agent) {
		log_error(CHANNEL, strerror(ENOMEM));
		return;
	}
	agent->settings = s;
	if (!open_channel()) {
		give_up(strerror(errno));
		return;
	}
	agent_work();
}
