// SPDX-License-Identifier: Apache-2.0
/*
 * A coverage-guided fuzzer of the agent in nabla-init, compiled together with init/agent*.c and their dependencies, with
 * sanitizers. A conversation consists of the messages of a host; programs and files are real.
 *
 *   agent FOLDER SEED ROUNDS    FOLDER: empty, everything in it may be destroyed
 *
 * The agent may answer only with frames of the protocol, in sessions that the host began, and only with data for which it
 * has credit, also on the new channel of a restored VM; at the end of the channel, it frees everything. Ends with status 0;
 * a finding ends it by a sanitizer or by abort().
 */
#include "agent.h"
#include "control_wire.h"
#include "conversations.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Data that starts with this byte is repeated as often as the next byte says: more than windows hold. */
#define FLOOD 0xf1

/* A frame of this type stands for the moment at which the VM is saved and then restored. */
#define RESTORE 0xf2

static int channel = -1, host = -1;
static bool opened;    /* the agent has the channel */
static int stale = -1; /* the agent's descriptor of the channel of the VM that was saved */
static const char *folder;

int __real_open(const char *path, int flags, ...);
ssize_t __real_read(int fd, void *bytes, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t size);

ssize_t __wrap_read(int fd, void *bytes, size_t size)
{
	if (fd != stale)
		return __real_read(fd, bytes, size);
	errno = ESTALE;
	return -1;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
	if (fd != stale)
		return __real_write(fd, bytes, size);
	errno = ESTALE;
	return -1;
}

/* The agent's device is one end of a socket pair. */
int __wrap_open(const char *path, int flags, ...)
{
	va_list more;
	va_start(more, flags);
	mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
	va_end(more);
	if (strcmp(path, "/dev/host/control"))
		return __real_open(path, flags, mode);
	stale = -1;
	opened = true;
	return channel;
}

/* --- frames ---------------------------------------------------------------------------------------------------------- */

static void put_frame(struct conversation *c, int type, uint32_t stream, uint32_t id, const void *content, uint32_t length)
{
	const struct control_header h = {length, (uint8_t)type, (uint8_t)stream, (uint16_t)id};
	if (c->size + sizeof h + length > CONVERSATION)
		return;
	memcpy(c->bytes + c->size, &h, sizeof h);
	memcpy(c->bytes + c->size + sizeof h, content, length);
	c->size += (uint32_t)sizeof h + length;
}

static size_t put_text(uint8_t *at, const char *text)
{
	strcpy((char *)at, text);
	return strlen(text) + 1;
}

static void add_start(struct conversation *c, uint32_t id)
{
	static const char *const programs[][3] = {
		{"true"}, {"echo", "x"}, {"cat"}, {"sleep", "9"}, {"sh", "-c", "echo a; echo b >&2; exit 3"}, {"/nothing"}, {"/etc/passwd"},
		{"head", "-c", "600000"}, {"sh", "-c", "exec <&-; cat /etc/passwd"},
	};
	static const char *const users[] = {"", "", "", "root", "nobody", "7:8", "none", ":", "4294967295"};
	static const char *const names[] = {"f", "f", "none/x", "", ".", "d"};
	uint8_t bytes[512];
	size_t at = CONTROL_START_SIZE;
	const char *const *program = programs[draw(sizeof programs / sizeof *programs)];
	struct control_start head = {
		.kind = (uint8_t)(draw(3) ? CONTROL_EXEC : draw(3)),
		.flags = (uint8_t)draw(4),
		.rows = (uint16_t)draw(100),
		.mode = 0644,
		.variables = (uint16_t)draw(2),
	};
	at += put_text(bytes + at, head.kind == CONTROL_EXEC ? users[draw(sizeof users / sizeof *users)] : "");
	if (head.kind != CONTROL_EXEC) {
		char path[256];
		snprintf(path, sizeof path, "%s/%s", folder, names[draw(sizeof names / sizeof *names)]);
		at += put_text(bytes + at, path);
	} else {
		at += put_text(bytes + at, draw(8) ? "" : "/nowhere");
		for (; head.arguments < 3 && program[head.arguments]; head.arguments++)
			at += put_text(bytes + at, program[head.arguments]);
	}
	if (head.variables)
		at += put_text(bytes + at, draw(2) ? "HOME=/x" : "noassignment");
	memcpy(bytes, &head, CONTROL_START_SIZE);
	put_frame(c, CONTROL_START, 0, id, bytes, (uint32_t)at);
}

static void add_frame(struct conversation *c)
{
	static const uint8_t zeros[900];
	static const uint32_t numbers[] = {0, 1, 9, CONTROL_OUT_WINDOW / 4, 0x00500018, 0x7fffffff, 0xffffffff};
	uint32_t id = draw(3), number = numbers[draw(sizeof numbers / sizeof *numbers)];
	const uint8_t signals[] = {SIGTERM, SIGKILL, SIGHUP, SIGCONT, 0, 200};
	uint8_t flood[900] = {FLOOD, (uint8_t)draw(256)};
	switch (draw(11)) {
	case 0: case 1: add_start(c, id); break;
	case 2: case 3: put_frame(c, CONTROL_DATA, 0, id, zeros, 1 + draw(sizeof zeros)); break;
	case 4: put_frame(c, CONTROL_CLOSE, 0, id, "", 0); break;
	case 5: put_frame(c, CONTROL_CREDIT, 1 + draw(2), id, &number, 4); break;
	case 6: put_frame(c, CONTROL_SIGNAL, 0, id, &signals[draw(sizeof signals)], 1); break;
	case 7: put_frame(c, CONTROL_WINDOW, 0, id, &number, 4); break;
	case 8: put_frame(c, CONTROL_HANGUP, 0, id, "", 0); break;
	case 9: put_frame(c, CONTROL_DATA, 0, id, flood, sizeof flood); break;
	case 10: put_frame(c, RESTORE, 0, 0, "", 0); break;
	}
}

/* --- the host -------------------------------------------------------------------------------------------------------- */

static struct {
	bool begun;
	uint64_t credit[2];
} sessions[CONTROL_SESSIONS];
static uint8_t answers[1 << 20];
static size_t have;
static bool greeted;

/* Processes, and modes of files. */
static uint32_t started[4096];
static size_t started_count;

/* A conversation may have stopped them. */
static void end_programs(void)
{
	for (size_t i = 0; i < started_count; i++) {
		siginfo_t info;
		/* no mode of a file, but a child, which leads a group */
		if (started[i] > 1 && !waitid(P_PID, (id_t)started[i], &info, WEXITED | WNOHANG | WNOWAIT))
			kill(-(pid_t)started[i], SIGKILL);
	}
	started_count = 0;
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void check_frame(const struct control_header *h)
{
	if (h->type == CONTROL_HELLO) {
		if (greeted || h->id || h->length != 4)
			abort();
		greeted = true;
		return;
	}
	if (!greeted || h->id >= CONTROL_SESSIONS || !sessions[h->id].begun || h->length > CONTROL_CONTENT_MAX)
		abort();
	switch (h->type) {
	case CONTROL_DATA:
		if ((h->stream != 1 && h->stream != 2) || !h->length || sessions[h->id].credit[h->stream - 1] < h->length + CONTROL_HEADER)
			abort();
		sessions[h->id].credit[h->stream - 1] -= h->length + CONTROL_HEADER;
		break;
	case CONTROL_STARTED:
		if (h->length == 4 && started_count < sizeof started / sizeof *started)
			memcpy(&started[started_count++], (const uint8_t *)h + CONTROL_HEADER, 4);
		/* fall through */
	case CONTROL_EXIT: case CONTROL_CREDIT:
		if (h->length != 4)
			abort();
		break;
	case CONTROL_FAILED:
		if (h->length != 8)
			abort();
		break;
	case CONTROL_CLOSE:
		if (h->length || (h->stream != 1 && h->stream != 2))
			abort();
		break;
	default:
		abort();
	}
}

static void take_answers(void)
{
	size_t at = 0;
	for (ssize_t got; (got = recv(host, answers + have, sizeof answers - have, MSG_DONTWAIT)) > 0;)
		have += (size_t)got;
	while (have - at >= CONTROL_HEADER) {
		struct {
			struct control_header header;
			uint32_t number;
		} start = {.number = 0};
		struct control_header h;
		memcpy(&h, answers + at, sizeof h);
		if (h.length <= CONTROL_CONTENT_MAX && have - at < CONTROL_HEADER + h.length)
			break;
		memcpy(&start, answers + at, have - at < sizeof start ? have - at : sizeof start);
		check_frame(&start.header);
		at += CONTROL_HEADER + h.length;
	}
	memmove(answers, answers + at, have - at);
	have -= at;
}

static void reap(void)
{
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		agent_ended(pid, status);
}

/* The host's knowledge when it sends a frame. An answer cannot precede it. */
static void note_frame(const uint8_t *bytes, size_t length)
{
	struct control_header h;
	uint32_t number = 0;
	memcpy(&h, bytes, sizeof h);
	if (h.id >= CONTROL_SESSIONS || length < CONTROL_HEADER + h.length)
		return;
	memcpy(&number, bytes + CONTROL_HEADER, h.length < 4 ? h.length : 4);
	if (h.type == CONTROL_START) {
		/* of a session that exists it is an error, of others that came before it may be an end */
		sessions[h.id].begun = true;
		sessions[h.id].credit[0] += CONTROL_OUT_WINDOW;
		sessions[h.id].credit[1] += CONTROL_OUT_WINDOW;
	} else if (h.type == CONTROL_CREDIT && (h.stream == 1 || h.stream == 2)) {
		sessions[h.id].credit[h.stream - 1] += number;
	}
}

static bool send_all(const uint8_t *bytes, size_t length)
{
	for (int turns = 0; length && turns < 1000; turns++) {
		ssize_t sent = send(host, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN)
			return false; /* the agent has given up */
		if (sent > 0) {
			bytes += sent;
			length -= (size_t)sent;
		}
		agent_work();
		reap();
		take_answers();
	}
	return !length;
}

static int open_files(void)
{
	int count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

/* A host that knows nothing yet. */
static void meet(void)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		exit(2);
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	host = pair[0];
	channel = pair[1];
	opened = false;
	memset(sessions, 0, sizeof sessions);
	have = 0;
	greeted = false;
}

static void part(void)
{
	close(host);
	if (!opened)
		close(channel);
}

static void restore(void)
{
	/* an agent that gave up has closed it */
	int old = opened && fcntl(channel, F_GETFD) >= 0 ? channel : -1;
	part();
	meet();
	stale = old;
	agent_work();
	take_answers();
}

static void talk(const struct conversation *c)
{
	static char *env[] = {"PATH=/usr/bin:/bin", "HOME=/root", NULL};
	static const struct settings settings = {.env = env, .workdir = "/"};
	int before = open_files();
	meet();
	stale = -1;
	memset(hits, 0, sizeof hits);
	tracing = true;
	agent_open(&settings);
	take_answers();
	for (uint32_t at = 0; c->size - at >= CONTROL_HEADER;) {
		struct control_header h;
		memcpy(&h, c->bytes + at, sizeof h);
		size_t length = CONTROL_HEADER + (size_t)h.length;
		if (length > c->size - at)
			length = c->size - at;
		if (h.type == RESTORE) {
			restore();
			at += (uint32_t)length;
			continue;
		}
		const uint8_t *content = c->bytes + at + CONTROL_HEADER;
		/* a whole frame; otherwise the next frames would differ from the recorded ones */
		bool flood = h.type == CONTROL_DATA && length == CONTROL_HEADER + h.length && h.length > 1 && content[0] == FLOOD;
		bool good = true;
		note_frame(c->bytes + at, length);
		for (int n = flood ? content[1] : 1; n > 0 && good; n--)
			good = send_all(c->bytes + at, length);
		if (!good)
			break;
		at += (uint32_t)length;
	}
	/* programs that end on their own */
	for (int turns = 0; turns < 5; turns++) {
		poll(NULL, 0, 1);
		reap();
		agent_work();
		take_answers();
	}
	tracing = false;
	part();
	agent_work(); /* gives up: a later one does nothing */
	agent_work();
	end_programs();
	if (open_files() != before)
		abort();
}

int main(int argc, char **argv)
{
	static struct conversation c;
	if (argc != 4)
		return 2;
	folder = argv[1];
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	signal(SIGPIPE, SIG_IGN);
	for (long round = strtol(argv[3], NULL, 10); round > 0; round--) {
		invent(&c, add_frame, 10);
		talk(&c);
		keep_if_new(&c);
	}
	printf("%zu ways, %zu conversations kept\n", ways(), corpus_size);
	return 0;
}
