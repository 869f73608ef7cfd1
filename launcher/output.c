// SPDX-License-Identifier: Apache-2.0
// Nothing here may block: the launcher also supervises the VM.
#include "output.h"

#include "descriptors.h"
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Returns the VM's end of a new pipe. */
static int open_stream(struct output_stream *stream, int to)
{
	int ends[2];
	struct stat st = {0};
	fstat(to, &st);
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	stream->from = fd_move_high(ends[0]);
	stream->to = to;
	stream->counted = !S_ISCHR(st.st_mode);
	stream->socket = S_ISSOCK(st.st_mode);
	stream->most = S_ISFIFO(st.st_mode) ? PIPE_BUF : sizeof stream->buffer;
	if (fcntl(stream->from, F_SETFL, O_NONBLOCK) < 0)
		fail(NULL, "cannot set up a pipe: %s", strerror(errno));
	return fd_move_high(ends[1]);
}

void output_open(struct output *output, const struct options *o, int descriptors[])
{
	struct stat out, err;
	for (size_t i = 0; i < OUTPUT_STREAMS; i++)
		output->streams[i].from = -1;
	output->left = o->max_output;
	bool keep_out = o->name && !isatty(STDOUT_FILENO), keep_err = o->name && !isatty(STDERR_FILENO);
	bool limited = o->max_output != UNLIMITED;
	bool use_out = keep_out || (limited && !fstat(STDOUT_FILENO, &out) && !S_ISCHR(out.st_mode));
	bool use_err = keep_err || (limited && !fstat(STDERR_FILENO, &err) && !S_ISCHR(err.st_mode));
	output->active = use_out || use_err;
	if ((keep_out || keep_err) && !o->dry_run && !(output->log = console_log_create()))
		fail(NULL, "out of memory");
	if (use_out)
		descriptors[STDOUT_FILENO] = open_stream(&output->streams[0], STDOUT_FILENO);
	/* With 2>&1, one pipe for both keeps the order of what the VM writes. */
	if (use_out && use_err && !fstat(STDOUT_FILENO, &out) && !fstat(STDERR_FILENO, &err) && same_file(&out, &err))
		descriptors[STDERR_FILENO] = fd_copy_high(descriptors[STDOUT_FILENO]);
	else if (use_err)
		descriptors[STDERR_FILENO] = open_stream(&output->streams[1], STDERR_FILENO);
}

static bool is_empty(const struct output_stream *stream)
{
	return stream->start == stream->end;
}

void output_prepare(const struct output *output, struct pollfd *events)
{
	for (size_t i = 0; i < OUTPUT_STREAMS; i++) {
		const struct output_stream *stream = &output->streams[i];
		events[i].revents = 0;
		if (is_empty(stream))
			events[i] = (struct pollfd){.fd = stream->from, .events = POLLIN};
		else
			events[i] = (struct pollfd){.fd = stream->to, .events = POLLOUT};
	}
}

/* The VM's next write fails as for any pipe without a reader. */
static void close_pipe(struct output_stream *stream)
{
	if (stream->from >= 0)
		close(stream->from);
	stream->from = -1;
}

static void read_stream(struct output *output, struct output_stream *stream)
{
	/* At the limit, one more byte decides whether the VM exceeds it. */
	size_t most = sizeof stream->buffer;
	if (stream->counted && output->left < most)
		most = (size_t)output->left;
	ssize_t got = read(stream->from, stream->buffer, most ? most : 1);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		close_pipe(stream);
		return;
	}
	if (stream->counted && !output->left) {
		output->exceeded = true;
		for (size_t i = 0; i < OUTPUT_STREAMS; i++)
			close_pipe(&output->streams[i]);
		return;
	}
	if (stream->counted && output->left != UNLIMITED)
		output->left -= (uint64_t)got;
	if (output->log)
		console_log_add(output->log, stream->buffer, (size_t)got);
	stream->start = 0;
	stream->end = (size_t)got;
}

static bool can_write(int fd)
{
	struct pollfd event = {.fd = fd, .events = POLLOUT};
	return poll(&event, 1, 0) > 0;
}

static void write_stream(struct output_stream *stream)
{
	while (!is_empty(stream) && can_write(stream->to)) {
		const char *data = stream->buffer + stream->start;
		size_t length = stream->end - stream->start;
		if (length > stream->most)
			length = stream->most;
		ssize_t written = stream->socket ? send(stream->to, data, length, MSG_DONTWAIT | MSG_NOSIGNAL)
						 : write(stream->to, data, length);
		if (written < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (written < 0) {
			if (errno != EPIPE)
				note("warning: cannot write standard %s: %s",
				     stream->to == STDOUT_FILENO ? "output" : "error", strerror(errno));
			close_pipe(stream);
			stream->start = stream->end;
			return;
		}
		stream->start += (size_t)written;
	}
}

void output_handle(struct output *output, const struct pollfd *events)
{
	for (size_t i = 0; i < OUTPUT_STREAMS; i++) {
		struct output_stream *stream = &output->streams[i];
		if (!events[i].revents)
			continue;
		if (is_empty(stream) && stream->from >= 0)
			read_stream(output, stream);
		write_stream(stream);
	}
}

bool output_pending(const struct output *output)
{
	for (size_t i = 0; i < OUTPUT_STREAMS; i++)
		if (output->streams[i].from >= 0 || !is_empty(&output->streams[i]))
			return true;
	return false;
}
