// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include "status.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* Made by the Makefile from the C library's header. */
static const char *const call_names[] = {
#include "call_names.inc"
};

/* Enough for all counters with the longest numbers; below PIPE_BUF, so that a line is written whole. */
struct line {
	char text[2048];
	size_t length;
};

const char *call_name(uint64_t number)
{
	return number < sizeof call_names / sizeof *call_names ? call_names[number] : NULL;
}

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
	va_list args;
	size_t room = sizeof line->text - line->length;
	va_start(args, format);
	int length = vsnprintf(line->text + line->length, room, format, args);
	va_end(args);
	if (length > 0 && (size_t)length < room)
		line->length += (size_t)length;
}

/* The time between two moments, either of which may be unknown (0). */
static void add_time(struct line *line, const char *key, uint64_t from, uint64_t to)
{
	if (from && to)
		add(line, "\"%s\":%llu,", key, (unsigned long long)(to - from) / 1000);
	else
		add(line, "\"%s\":null,", key);
}

static void add_start(struct line *line, const struct status *status, uint64_t started_ns)
{
	add_time(line, "launch_us", started_ns, status->boot_ns);
	add_time(line, "boot_us", status->boot_ns, status->user_ns);
}

/* The machine may say the same number twice, but a key must not come twice. */
static bool is_duplicate(const struct status *status, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (status->calls[i].number == status->calls[at].number)
			return true;
	return false;
}

static void add_calls(struct line *line, const struct status *status)
{
	const char *separator = "";
	add(line, "\"host_calls\":{");
	for (size_t i = 0; i < status->count; i++) {
		if (is_duplicate(status, i))
			continue;
		const char *name = call_name(status->calls[i].number);
		if (name)
			add(line, "%s\"%s\":", separator, name);
		else
			add(line, "%s\"%u\":", separator, status->calls[i].number);
		add(line, "%llu", (unsigned long long)status->calls[i].count);
		separator = ",";
	}
	add(line, "}}\n");
}

void report_end(const struct ending *end)
{
	struct line line = {.length = 0};
	struct status status;
	status_read(&status, end->started_ns, end->ended_ns);
	add(&line, "{\"exit\":%d,\"reason\":\"%s\",\"signal\":", end->status, end->reason);
	if (end->signal)
		add(&line, "%d,", end->signal);
	else
		add(&line, "null,");
	add_start(&line, &status, end->started_ns);
	add_time(&line, "run_us", status.user_ns, end->ended_ns);
	add_time(&line, "total_us", end->started_ns, end->ended_ns);
	add(&line, "\"peak_memory_kib\":%ld,", end->peak_kib);
	add_calls(&line, &status);
	fwrite(line.text, 1, line.length, stderr);
}

int report_running(int fd, uint64_t started_ns)
{
	struct line line = {.length = 0};
	struct status status;
	struct pollfd room = {.fd = fd, .events = POLLOUT};
	uint64_t now = now_ns();
	if (poll(&room, 1, 0) <= 0 || !(room.revents & POLLOUT))
		return room.revents & (POLLERR | POLLHUP | POLLNVAL) ? -1 : 0;
	status_read(&status, started_ns, now);
	add(&line, "{");
	add_time(&line, "uptime_us", started_ns, now);
	add_start(&line, &status, started_ns);
	add_calls(&line, &status);
	/* Nothing may stop us from watching the machine; what cannot be written is left out. */
	return write(fd, line.text, line.length) < 0 && errno != EAGAIN && errno != EINTR ? -1 : 0;
}
