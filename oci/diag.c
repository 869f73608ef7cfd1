// SPDX-License-Identifier: Apache-2.0
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <json_object.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_file = -1, parent = -1;
static bool log_json;
static void (*failure_handler)(void);

void log_open(const char *path, bool json)
{
	if (!path)
		return;
	log_json = json;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd < 0)
		fail("its directory must exist and be writable", "cannot open the log %s: %s", path, strerror(errno));
	log_file = fd;
}

void log_to_parent(int fd)
{
	parent = fd;
	failure_handler = NULL;
}

void on_failure(void (*f)(void))
{
	failure_handler = f;
}

/* Messages quote contents of bundles, which must neither break the line nor control the terminal. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

static void put(int fd, const char *text)
{
	/* There is no other place to report that a message cannot be written. */
	if (write(fd, text, strlen(text)) < 0)
		return;
}

static void put_log(const char *level, const char *message)
{
	char now[32], line[8600];
	struct timespec t;
	struct tm utc;
	if (log_file < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &t);
	strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t.tv_sec, &utc));
	if (!log_json) {
		snprintf(line, sizeof line, "time=\"%s\" level=%s msg=\"%s\"\n", now, level, message);
		put(log_file, line);
		return;
	}
	struct json_object *entry = json_object_new_object();
	json_object_object_add(entry, "msg", json_object_new_string(message));
	json_object_object_add(entry, "level", json_object_new_string(level));
	json_object_object_add(entry, "time", json_object_new_string(now));
	snprintf(line, sizeof line, "%s\n", json_object_to_json_string_ext(entry, JSON_C_TO_STRING_PLAIN));
	json_object_put(entry);
	put(log_file, line);
}

static void put_error(const char *message)
{
	char line[8600];
	put_log("error", message);
	snprintf(line, sizeof line, "nabla-oci: %s\n", message);
	put(STDERR_FILENO, line);
}

void fail_with_line(const char *line)
{
	if (failure_handler)
		failure_handler();
	put_error(line);
	exit(EXIT_FAILURE_OWN);
}

void fail(const char *hint, const char *format, ...)
{
	char message[4096], line[8192];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	snprintf(line, sizeof line, hint ? "%s (%s)" : "%s", message, hint);
	make_printable(line);
	if (parent >= 0) {
		put(parent, line);
		_exit(EXIT_FAILURE_OWN);
	}
	fail_with_line(line);
}

void warn(const char *format, ...)
{
	char message[4096], line[4200];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	make_printable(message);
	if (log_file >= 0) {
		put_log("warning", message);
		return;
	}
	snprintf(line, sizeof line, "nabla-oci: warning: %s\n", message);
	put(STDERR_FILENO, line);
}
