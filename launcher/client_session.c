// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include "diag.h"
#include "terminal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 32768u
#define QUARTER (CONTROL_OUT_WINDOW / 4)
/* After more requests to end than this, within this time, the client ends even if the program does not. */
#define PATIENCE 3
#define PATIENCE_S 5

struct run {
	struct peer *peer;
	const struct streams *streams;
	int in;		    /* -1: closed */
	uint32_t credit;    /* for standard input */
	uint32_t taken[2];  /* to be credited */
	int signals, count; /* a signalfd; the number of requests to end */
	time_t since;	    /* the first of them */
	bool started, over, whole; /* whole: the input is a file */
	uint32_t status;
};

static _Noreturn void fail_gone(const struct run *r)
{
	fail(NULL, "VM %s has ended", r->peer->name);
}

static void send_frame(struct run *r, enum control_type type, int stream, const void *content, size_t length)
{
	/* the reason may still be unread */
	if (!peer_send(r->peer, type, stream, content, length))
		r->in = -1;
}

/* --- the request ----------------------------------------------------------------------------------------------------- */

static size_t add(uint8_t *content, size_t at, const char *text)
{
	size_t length = strlen(text) + 1;
	if (at + length > CONTROL_CONTENT_MAX)
		fail_with(EXIT_BAD_INPUT, "copy them into a file", "arguments and variables are longer than %d bytes",
			  CONTROL_CONTENT_MAX);
	memcpy(content + at, text, length);
	return at + length;
}

static void send_request(struct run *r, const struct request *request)
{
	static uint8_t content[CONTROL_CONTENT_MAX];
	size_t at = CONTROL_START_SIZE;
	memcpy(content, &request->head, CONTROL_START_SIZE);
	at = add(content, at, request->user);
	at = add(content, at, request->path);
	for (size_t i = 0; i < request->head.arguments; i++)
		at = add(content, at, request->arguments[i]);
	for (size_t i = 0; i < request->head.variables; i++)
		at = add(content, at, request->variables[i]);
	send_frame(r, CONTROL_START, 0, content, at);
}

static _Noreturn void fail_to_start(const struct run *r, const struct request *request, uint32_t stage, uint32_t number)
{
	const char *name = r->peer->name, *why = strerror((int)number);
	/* the guest may name any stage, even a program's for a file */
	if (request->head.kind != CONTROL_EXEC)
		fail(number == EISDIR || number == EINVAL ? "only regular files are copied" : NULL, "VM %s: %s: %s", name,
		     request->path, why);
	switch (stage) {
	case CONTROL_STAGE_USER:
		fail("see the guest's /etc/passwd and /etc/group", "VM %s cannot run programs as user %s: %s", name,
		     request->user, number == ENOENT ? "it has no such user" : why);
	case CONTROL_STAGE_DIRECTORY:
		fail("choose another directory with --workdir", "VM %s cannot enter directory %s: %s", name, request->path, why);
	case CONTROL_STAGE_PROGRAM:
		if (number == ENOENT || number == ENOTDIR)
			fail_with(127, NULL, "VM %s: %s: not found", name, request->arguments[0]);
		fail_with(126, NULL, "VM %s: %s: %s", name, request->arguments[0], why);
	default:
		fail(NULL, "VM %s cannot start the program: %s", name, why);
	}
}

/* --- signals --------------------------------------------------------------------------------------------------------- */

static const int forwarded[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};

static int catch_signals(bool terminal)
{
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
		struct sigaction now;
		if (!sigaction(forwarded[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(&set, forwarded[i]);
	}
	if (terminal)
		sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void send_window(struct run *r)
{
	struct winsize size;
	if (r->streams->terminal && r->started && !ioctl(STDIN_FILENO, TIOCGWINSZ, &size))
		send_frame(r, CONTROL_WINDOW, 0, (const uint16_t[]){size.ws_row, size.ws_col}, 4);
}

/* Like any job of a shell: the terminal is in its original mode while nabla is stopped. The key stops the program in the VM. */
static void stop_and_continue(struct run *r)
{
	terminal_restore();
	raise(SIGSTOP);
	if (r->started)
		terminal_raw();
	send_window(r); /* the size may have changed */
}

static void count_request(struct run *r)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!r->count || now.tv_sec - r->since > PATIENCE_S) {
		r->count = 0;
		r->since = now.tv_sec;
	}
	r->count++;
}

static void forward_signal(struct run *r)
{
	struct signalfd_siginfo info;
	if (read(r->signals, &info, sizeof info) != sizeof info)
		return;
	switch (info.ssi_signo) {
	case SIGTSTP:
		stop_and_continue(r);
		return;
	case SIGWINCH:
		send_window(r);
		return;
	case SIGUSR1:
	case SIGUSR2:
		break;
	default:
		count_request(r);
	}
	if (r->count > PATIENCE || !r->started)
		fail_with(128 + (int)info.ssi_signo, NULL, "ended by signal %d", (int)info.ssi_signo);
	send_frame(r, CONTROL_SIGNAL, 0, &(const uint8_t){(uint8_t)info.ssi_signo}, 1);
}

/* --- streams --------------------------------------------------------------------------------------------------------- */

/* Pass signals on even while nabla waits for the reader of a pipe. */
static bool write_all(struct run *r, int fd, const uint8_t *bytes, size_t length)
{
	while (length) {
		struct pollfd events[] = {{.fd = fd, .events = POLLOUT}, {.fd = r->signals, .events = POLLIN}};
		if (poll(events, 2, -1) < 0 && errno != EINTR)
			return false;
		if (events[1].revents)
			forward_signal(r);
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

static void take_data(struct run *r, const struct control_header *h, const uint8_t *content)
{
	int i = h->stream == 2;
	int fd = r->streams->out[i];
	bool good = fd < 0 || write_all(r, fd, content, h->length);
	if (!good && errno == EPIPE && !i && r->streams->unread)
		r->streams->unread(r->streams->context);
	if (!good)
		fail(NULL, "cannot write the output: %s", strerror(errno));
	r->taken[i] += CONTROL_HEADER + h->length;
	if (r->taken[i] < QUARTER)
		return;
	send_frame(r, CONTROL_CREDIT, i + 1, &r->taken[i], sizeof r->taken[i]);
	r->taken[i] = 0;
}

static void take_frame(struct run *r, const struct request *request)
{
	struct control_header h;
	uint32_t numbers[2] = {0, 0};
	const uint8_t *content = peer_receive(r->peer, &h);
	if (!content)
		fail_gone(r);
	memcpy(numbers, content, h.length < sizeof numbers ? h.length : sizeof numbers);
	switch (h.type) {
	case CONTROL_STARTED:
		r->started = true;
		if (r->streams->started)
			r->streams->started(r->streams->context, numbers[0]);
		break;
	case CONTROL_FAILED:
		fail_to_start(r, request, numbers[0], numbers[1]);
	case CONTROL_DATA:
		take_data(r, &h, content);
		break;
	case CONTROL_CREDIT:
		r->credit += numbers[0];
		break;
	case CONTROL_EXIT:
		r->status = numbers[0];
		r->over = true;
		break;
	}
}

static void read_input(struct run *r)
{
	static uint8_t bytes[CHUNK];
	size_t most = r->credit - CONTROL_HEADER < CHUNK ? r->credit - CONTROL_HEADER : CHUNK;
	ssize_t got = read(r->in, bytes, most);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	/* half a file is not a copy */
	if (got < 0 && r->whole)
		fail(NULL, "cannot read the input: %s", strerror(errno));
	if (got < 0)
		note("warning: cannot read the input: %s", strerror(errno));
	if (got <= 0) {
		r->in = -1;
		send_frame(r, CONTROL_CLOSE, 0, NULL, 0);
		return;
	}
	r->credit -= CONTROL_HEADER + (uint32_t)got;
	send_frame(r, CONTROL_DATA, 0, bytes, (size_t)got);
}

uint32_t session_run(struct peer *peer, const struct request *request, const struct streams *streams)
{
	struct run r = {.peer = peer, .streams = streams, .in = streams->in, .credit = CONTROL_IN_WINDOW,
			.whole = request->head.kind == CONTROL_WRITE};
	r.signals = catch_signals(streams->terminal);
	send_request(&r, request);
	while (!r.over) {
		bool reads = r.started && r.in >= 0 && r.credit > CONTROL_HEADER;
		struct pollfd events[] = {{.fd = peer->fd, .events = POLLIN},
					  {.fd = r.signals, .events = POLLIN},
					  {.fd = reads ? r.in : -1, .events = POLLIN}};
		if (!peer_has_frame(peer) && poll(events, 3, -1) < 0 && errno != EINTR)
			fail(NULL, "cannot wait: %s", strerror(errno));
		if (events[1].revents)
			forward_signal(&r);
		if (events[2].revents)
			read_input(&r);
		if (peer_has_frame(peer) || events[0].revents)
			take_frame(&r, request);
	}
	close(r.signals);
	return r.status;
}
