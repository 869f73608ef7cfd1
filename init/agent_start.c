// SPDX-License-Identifier: Apache-2.0
#include "agent_start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* More than the kernel buffers for the reader of a terminal. */
#define TERMINAL_LEFT (65536 + 4096)

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

/* The strings are a user, who does not count, and the file. */
static int start_file(struct session *s, const struct control_start *head, const char *strings, size_t length, uint32_t *value)
{
	struct stat st;
	bool write = head->kind == CONTROL_WRITE;
	const char *path = strings + strlen(strings) + 1;
	if (path >= strings + length)
		return EINVAL;
	int fd = open_regular(path, write ? O_WRONLY | O_CREAT : O_RDONLY, head->mode & 07777, &st);
	if (fd < 0 || (write && (ftruncate(fd, 0) < 0 || fchmod(fd, head->mode & 07777) < 0))) {
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
static bool open_pipes(struct session *s, const struct control_start *head, int theirs[3])
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
	if (!(head->flags & CONTROL_INPUT)) {
		close(s->in);
		s->in = -1;
	}
	return true;
}

static bool open_terminal(struct session *s, const struct control_start *head, int theirs[3])
{
	struct winsize size = {.ws_row = head->rows, .ws_col = head->columns};
	s->out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (s->out[0] < 0 || ioctl(s->out[0], TIOCSPTLCK, &(int){0}) < 0)
		return false;
	theirs[0] = ioctl(s->out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	s->in = fcntl(s->out[0], F_DUPFD_CLOEXEC, 0);
	if (size.ws_row || size.ws_col)
		ioctl(s->out[0], TIOCSWINSZ, &size);
	return theirs[0] >= 0 && s->in >= 0;
}

static int start_program(struct session *s, const struct control_start *head, char *strings, size_t length,
			 const struct settings *base, uint32_t *value, uint32_t *stage)
{
	int theirs[3] = {-1, -1, -1};
	bool terminal = head->flags & CONTROL_TERMINAL;
	int error = (terminal ? open_terminal(s, head, theirs) : open_pipes(s, head, theirs)) ? 0 : errno;
	if (terminal)
		theirs[1] = theirs[2] = theirs[0];
	if (!error)
		error = program_start(head, strings, length, base, theirs, &s->pid, stage);
	for (int i = 0; i < (terminal ? 1 : 3); i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	*value = (uint32_t)s->pid;
	return error;
}

int session_start(struct session *s, const struct settings *base, uint8_t *content, size_t length, uint32_t *value,
		  uint32_t *stage)
{
	struct control_start head;
	char *strings = (char *)content + CONTROL_START_SIZE;
	*stage = CONTROL_STAGE_RESOURCES;
	if (length <= CONTROL_START_SIZE || content[length - 1])
		return EINVAL;
	memcpy(&head, content, CONTROL_START_SIZE);
	length -= CONTROL_START_SIZE;
	*s = (struct session){
		.used = true,
		.engine = head.flags & CONTROL_ENGINE,
		.in = -1,
		.out = {-1, -1},
		.credit = {CONTROL_OUT_WINDOW, CONTROL_OUT_WINDOW},
	};
	int error = 0;
	bool file = head.kind == CONTROL_READ || head.kind == CONTROL_WRITE;
	if (file ? head.kind == CONTROL_WRITE : head.flags & CONTROL_INPUT) {
		s->input = malloc(CONTROL_IN_WINDOW);
		error = s->input ? 0 : ENOMEM;
	}
	if (!error && file) {
		*stage = CONTROL_STAGE_FILE;
		error = start_file(s, &head, strings, length, value);
	} else if (!error && head.kind == CONTROL_QUESTION) {
		s->file = true;
		error = question_answer(strings, length, &s->out[0]);
	} else if (!error) {
		error = start_program(s, &head, strings, length, base, value, stage);
	}
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
