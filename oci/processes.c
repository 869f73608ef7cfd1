// SPDX-License-Identifier: Apache-2.0
#include "processes.h"

#include "channel.h"
#include "diag.h"
#include "state.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST "list="
#define DEPTH_MAX 8
#define FILE_MAX (64 << 10)

/* Adds the numbers that a file has; descend: and the children of each. */
static void add_numbers(struct json_object *pids, const char *path, int depth)
{
	char text[FILE_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = '\0';
	char *end;
	for (char *at = text; *at; at = end + strspn(end, " \n")) {
		long pid = strtol(at, &end, 10);
		if (end == at)
			break;
		json_object_array_add(pids, json_object_new_int64(pid));
		if (depth)
			add_numbers(pids, format_text("/proc/%ld/task/%ld/children", pid, pid), depth - 1);
	}
}

static struct json_object *host_processes(const struct state *s)
{
	struct json_object *pids = json_object_new_array();
	if (s->cgroup) {
		add_numbers(pids, format_text("%s/cgroup.procs", s->cgroup), 0);
	} else {
		json_object_array_add(pids, json_object_new_int(s->pid));
		add_numbers(pids, format_text("/proc/%d/task/%d/children", s->pid, s->pid), DEPTH_MAX);
	}
	return pids;
}

/* A guest may answer anything. What is no line of protocol.h is not printed, nor is what would control the terminal. */
static void print_line(char *line)
{
	unsigned long numbers[3];
	char *at = line;
	for (size_t i = 0; i < 3; i++) {
		char *end;
		if (!isdigit((unsigned char)*at))
			return;
		numbers[i] = strtoul(at, &end, 10);
		if (*end != ' ')
			return;
		at = end + 1;
	}
	for (char *letter = at; *letter; letter++)
		if (!isprint((unsigned char)*letter))
			*letter = '?';
	printf("%7lu %7lu %6lu %s\n", numbers[0], numbers[1], numbers[2], at);
}

static void print_guest_processes(const struct state *s)
{
	const char *why;
	size_t length = 0;
	char *text = s->status == RUNNING ? channel_ask(s, LIST, sizeof LIST, &length, &why) : NULL;
	if (!text)
		fail(s->status == PAUSED ? "resume it first" : NULL, "cannot list the processes of container %s: %s", s->id,
		     s->status == PAUSED ? "it is paused" : why);
	printf("%7s %7s %6s %s\n", "PID", "PPID", "UID", "COMMAND");
	for (char *line = text, *end; line < text + length; line = end + 1) {
		end = memchr(line, '\n', (size_t)(text + length - line));
		if (!end)
			break;
		*end = '\0';
		print_line(line);
	}
}

void container_ps(const char *id, bool json)
{
	struct state s;
	state_load(id, &s, false);
	if (s.status != RUNNING && s.status != PAUSED && !(json && s.status == CREATED))
		fail(NULL, "container %s is %s and has no processes", id, status_names[s.status]);
	if (json)
		puts(json_object_to_json_string_ext(host_processes(&s), JSON_C_TO_STRING_PLAIN));
	else
		print_guest_processes(&s);
}
