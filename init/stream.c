// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <termios.h>
#include <unistd.h>

/*
 * How the end of the host's standard input arrives. A kernel that opens the console with PARMRK sends a break, which is
 * then read as ff 00 00, while a byte ff of the data is read as ff ff. Any other kernel sends ^D, as a terminal does.
 */
#define MARK 0xff
#define CTRL_D 4
static bool marks;

static int to_command = -1;   /* we write the command's input here */
static int from_command = -1; /* and read its output here */
static unsigned char pending[4096];
static size_t pending_begin, pending_end;
static bool input_ended;

void console_mode(bool terminal)
{
	struct termios t;
	if (tcgetattr(STDIN_FILENO, &t) < 0)
		return;
	if (terminal) {
		t.c_iflag = ICRNL | IXON | IUTF8;
		t.c_oflag = OPOST | ONLCR;
		t.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
	} else {
		marks = t.c_iflag & PARMRK;
		t.c_iflag = marks ? PARMRK : 0;
		t.c_oflag = 0;
		t.c_lflag = 0;
		t.c_cc[VMIN] = 1;
		t.c_cc[VTIME] = 0;
	}
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

bool stream_open(struct stream_ends *ends)
{
	int in[2], out[2];
	if (pipe2(in, O_CLOEXEC) < 0)
		return false;
	if (pipe2(out, O_CLOEXEC) < 0) {
		close(in[0]);
		close(in[1]);
		return false;
	}
	/* Init must not wait for a command that does not read, while that one waits for init to take its output. */
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	*ends = (struct stream_ends){.input = in[0], .output = out[1]};
	to_command = in[1];
	from_command = out[0];
	return true;
}

void stream_started(const struct stream_ends *ends)
{
	close(ends->input);
	close(ends->output);
}

static void close_input(void)
{
	close(to_command);
	to_command = -1;
}

static void write_all(const unsigned char *bytes, size_t count)
{
	while (count) {
		ssize_t done = write(STDOUT_FILENO, bytes, count);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return; /* the host does not take it; so be it */
		bytes += done;
		count -= (size_t)done;
	}
}

/* Returns false when there is nothing to copy for now. */
static bool copy_output(void)
{
	static unsigned char buffer[4096];
	ssize_t got = read(from_command, buffer, sizeof buffer);
	if (got > 0) {
		write_all(buffer, (size_t)got);
		return true;
	}
	if (got == 0) {
		close(from_command);
		from_command = -1;
	}
	return false;
}

/* Takes one byte as it came from the console; returns false if it belongs to a mark and is no data. */
static bool take_byte(unsigned char byte)
{
	static int marked; /* how many bytes of a mark came before this one */
	if (!marks) {
		input_ended = byte == CTRL_D;
		return !input_ended;
	}
	switch (marked) {
	case 0:
		marked = byte == MARK;
		return !marked;
	case 1:
		marked = byte == MARK ? 0 : 2;
		return byte == MARK;
	default:
		marked = 0;
		input_ended = true;
		return false;
	}
}

static void take_input(void)
{
	ssize_t got = read(STDIN_FILENO, pending, sizeof pending);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	pending_begin = pending_end = 0;
	for (ssize_t i = 0; i < got && !input_ended; i++)
		if (take_byte(pending[i]))
			pending[pending_end++] = pending[i];
	if (got <= 0)
		input_ended = true;
}

static void give_input(void)
{
	if (pending_begin < pending_end) {
		ssize_t done = write(to_command, pending + pending_begin, pending_end - pending_begin);
		if (done < 0 && errno != EAGAIN && errno != EINTR) {
			close_input(); /* nobody reads any more */
			return;
		}
		if (done > 0)
			pending_begin += (size_t)done;
	}
	if (pending_begin == pending_end && input_ended)
		close_input();
}

void stream_wait(const sigset_t *mask)
{
	struct pollfd polled[3];
	nfds_t count = 0;
	bool full = pending_begin < pending_end;
	int console = -1, input = -1, output = -1;
	if (to_command >= 0 && !full && !input_ended)
		polled[console = (int)count++] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	if (to_command >= 0)
		polled[input = (int)count++] = (struct pollfd){.fd = to_command, .events = full ? POLLOUT : 0};
	if (from_command >= 0)
		polled[output = (int)count++] = (struct pollfd){.fd = from_command, .events = POLLIN};
	if (ppoll(polled, count, NULL, mask) < 0)
		return;
	if (output >= 0 && polled[output].revents)
		copy_output();
	if (console >= 0 && polled[console].revents)
		take_input();
	if (input >= 0 && polled[input].revents & POLLERR)
		close_input();
	else if (to_command >= 0)
		give_input();
}

void stream_drain(void)
{
	while (from_command >= 0 && copy_output())
		;
}
