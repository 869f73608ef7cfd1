// SPDX-License-Identifier: Apache-2.0
#include "agent_start.h"

#include "exec.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* More than the kernel buffers for the reader of a terminal. */
#define TERMINAL_LEFT (65536 + 4096)

/* A request in memory; every string is NUL-terminated. */
struct request {
	struct control_start head;
	char *user;
	char *path; /* the working directory, or the file */
	char **argv;
	struct settings settings; /* the environment and the user */
};

/* Splits the strings; the last byte of the content must be NUL. Returns false if there are not as many as announced. */
static bool parse(struct request *r, uint8_t *content, size_t length, const struct settings *base)
{
	char *at = (char *)content + CONTROL_START_SIZE, *end = (char *)content + length;
	size_t inherited = 0;
	if (length <= CONTROL_START_SIZE || end[-1])
		return false;
	memcpy(&r->head, content, CONTROL_START_SIZE);
	while (base->env[inherited])
		inherited++;
	size_t given = r->head.variables, words = r->head.arguments;
	/* HOME, USER and LOGNAME may be added */
	r->argv = calloc(words + 1 + inherited + given + 4, sizeof *r->argv);
	if (!r->argv)
		return false;
	r->settings = *base;
	r->settings.env = r->argv + words + 1;
	memcpy(r->settings.env, base->env, inherited * sizeof *base->env);
	for (size_t i = 0; i < 2 + words + given; i++) {
		if (at == end)
			return false;
		if (i == 0)
			r->user = at;
		else if (i == 1)
			r->path = at;
		else if (i < 2 + words)
			r->argv[i - 2] = at;
		else if (strchr(at, '='))
			settings_variable(r->settings.env, at);
		at += strlen(at) + 1;
	}
	r->settings.user = *r->user ? r->user : NULL;
	return at == end;
}

/* Variables that are neither in the content nor in the settings were allocated for the user. */
static void release(struct request *r, const struct settings *base, const uint8_t *content, size_t length)
{
	for (char **at = r->argv ? r->settings.env : NULL; at && *at; at++) {
		bool known = (uint8_t *)*at >= content && (uint8_t *)*at < content + length;
		for (char **each = base->env; *each && !known; each++)
			known = *each == *at;
		if (!known)
			free(*at);
	}
	free(r->argv);
}

/* --- files --------------------------------------------------------------------------------------------------------- */

static int open_regular(const char *path, int flags, mode_t mode, struct stat *st)
{
	int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
	if (fd < 0 || fstat(fd, st) < 0)
		return -1;
	if (S_ISREG(st->st_mode))
		return fd;
	close(fd);
	errno = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
	return -1;
}

static int start_file(struct session *s, const struct request *r, uint32_t *value)
{
	struct stat st;
	bool write = r->head.kind == CONTROL_WRITE;
	int fd = open_regular(r->path, write ? O_WRONLY | O_CREAT : O_RDONLY, r->head.mode & 07777, &st);
	if (fd < 0 || (write && (ftruncate(fd, 0) < 0 || fchmod(fd, r->head.mode & 07777) < 0))) {
		int error = errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	s->file = true;
	*(write ? &s->in : &s->out[0]) = fd;
	*value = st.st_mode & 07777;
	return 0;
}

/* --- programs ------------------------------------------------------------------------------------------------------ */

/* The other ends of in, out[0] and out[1], for the program. */
static bool open_pipes(struct session *s, const struct request *r, int theirs[3])
{
	for (int i = 0; i < 3; i++) {
		int pair[2];
		if (pipe2(pair, O_CLOEXEC) < 0)
			return false;
		theirs[i] = pair[i ? 1 : 0];
		int ours = pair[i ? 0 : 1];
		if (i)
			s->out[i - 1] = ours;
		else
			s->in = ours;
		fcntl(ours, F_SETFL, O_NONBLOCK);
	}
	if (!(r->head.flags & CONTROL_INPUT)) {
		close(s->in);
		s->in = -1;
	}
	return true;
}

static bool open_terminal(struct session *s, const struct request *r, int theirs[3])
{
	struct winsize size = {.ws_row = r->head.rows, .ws_col = r->head.columns};
	s->out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (s->out[0] < 0 || ioctl(s->out[0], TIOCSPTLCK, &(int){0}) < 0)
		return false;
	theirs[0] = ioctl(s->out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	s->in = fcntl(s->out[0], F_DUPFD_CLOEXEC, 0);
	if (size.ws_row || size.ws_col)
		ioctl(s->out[0], TIOCSWINSZ, &size);
	return theirs[0] >= 0 && s->in >= 0;
}

/* For a vfork child. Returns the error number. */
static int become(const struct request *r, const struct user *user, const int theirs[3], volatile uint32_t *stage)
{
	/* the signals that process 1 handles: a handler would run here, in its memory */
	static const int handled[] = {SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD};
	sigset_t none;
	bool terminal = r->head.flags & CONTROL_TERMINAL;
	setsid();
	*stage = CONTROL_STAGE_RESOURCES;
	for (int i = 0; i < 3; i++)
		if (dup2(theirs[terminal ? 0 : i], i) < 0)
			return errno;
	if (terminal)
		ioctl(STDIN_FILENO, TIOCSCTTY, 0);
	*stage = CONTROL_STAGE_USER;
	if (user && !user_become(user))
		return errno;
	*stage = CONTROL_STAGE_DIRECTORY;
	if (chdir(*r->path ? r->path : "/") < 0)
		return errno;
	*stage = CONTROL_STAGE_PROGRAM;
	for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
		signal(handled[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return exec_in_path(r->argv[0], r->argv, r->settings.env);
}

static int start_program(struct session *s, struct request *r, uint32_t *value, uint32_t *stage)
{
	static volatile int error;
	static volatile uint32_t where;
	struct user user = {0};
	int theirs[3] = {-1, -1, -1};
	bool terminal = r->head.flags & CONTROL_TERMINAL;
	if (r->settings.user && user_find(&r->settings, &user)) {
		*stage = CONTROL_STAGE_USER;
		return ENOENT;
	}
	error = 0;
	where = CONTROL_STAGE_RESOURCES;
	if (terminal ? !open_terminal(s, r, theirs) : !open_pipes(s, r, theirs))
		error = errno;
	s->pid = error ? -1 : vfork();
	if (s->pid == 0) {
		error = become(r, r->settings.user ? &user : NULL, theirs, &where);
		_exit(127);
	}
	if (s->pid < 0 && !error)
		error = errno;
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	free(user.groups);
	*stage = where;
	*value = (uint32_t)s->pid;
	return error;
}

int session_start(struct session *s, const struct settings *base, uint8_t *content, size_t length, uint32_t *value,
		  uint32_t *stage)
{
	struct request r = {.argv = NULL};
	int error = EINVAL;
	*s = (struct session){.used = true, .in = -1, .out = {-1, -1}, .credit = {CONTROL_OUT_WINDOW, CONTROL_OUT_WINDOW}};
	*stage = CONTROL_STAGE_RESOURCES;
	if (parse(&r, content, length, base)) {
		bool input = r.head.kind == CONTROL_EXEC ? r.head.flags & CONTROL_INPUT : r.head.kind == CONTROL_WRITE;
		s->input = input ? malloc(CONTROL_IN_WINDOW) : NULL;
		if (input && !s->input) {
			error = ENOMEM;
		} else if (r.head.kind == CONTROL_EXEC && r.head.arguments) {
			error = start_program(s, &r, value, stage);
		} else if (r.head.kind == CONTROL_READ || r.head.kind == CONTROL_WRITE) {
			*stage = CONTROL_STAGE_FILE;
			error = start_file(s, &r, value);
		}
	}
	release(&r, base, content, length);
	if (error)
		session_end(s);
	return error;
}

void session_end(struct session *s)
{
	if (s->in >= 0)
		close(s->in);
	for (int i = 0; i < 2; i++)
		if (s->out[i] >= 0)
			close(s->out[i]);
	free(s->input);
	s->used = false;
}

/* --- input, and what is left at the end --------------------------------------------------------------------------- */

void session_take_input(struct session *s, const uint8_t *content, size_t length)
{
	s->consumed += CONTROL_HEADER;
	if (s->in < 0 || !s->input || s->input_closed) {
		s->consumed += (uint32_t)length;
		return;
	}
	if (s->end + length > CONTROL_IN_WINDOW) {
		memmove(s->input, s->input + s->start, s->end - s->start);
		s->end -= s->start;
		s->start = 0;
	}
	/* more than the host has credit for */
	if (s->end + length > CONTROL_IN_WINDOW)
		length = CONTROL_IN_WINDOW - s->end;
	memcpy(s->input + s->end, content, length);
	s->end += length;
}

static void close_input(struct session *s)
{
	if (s->in >= 0)
		close(s->in);
	s->in = -1;
	s->consumed += (uint32_t)(s->end - s->start);
	s->start = s->end = 0;
}

void session_pass_input(struct session *s)
{
	while (s->in >= 0 && s->start < s->end) {
		ssize_t written = write(s->in, s->input + s->start, s->end - s->start);
		if (written < 0 && errno == EAGAIN)
			return;
		if (written <= 0) {
			if (s->file)
				s->status = errno;
			close_input(s);
			return;
		}
		s->start += (size_t)written;
		s->consumed += (uint32_t)written;
	}
	if (s->start == s->end)
		s->start = s->end = 0;
	if (s->input_closed && s->in >= 0)
		close_input(s);
}

void session_ended(struct session *s, int status)
{
	s->ended = true;
	s->status = status;
	for (int i = 0; i < 2; i++) {
		int left = 0;
		/* for a terminal, the number of bytes that the other side has not read */
		if (s->out[i] >= 0 && isatty(s->out[i]))
			s->left[i] = TERMINAL_LEFT;
		else if (s->out[i] >= 0 && !ioctl(s->out[i], FIONREAD, &left))
			s->left[i] = (size_t)left;
	}
}
