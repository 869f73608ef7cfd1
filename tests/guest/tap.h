/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiny TAP producer for the programs that run inside the VM.
 *
 * Each check prints one line, "ok N - name" or "not ok N - name" with the place and errno. Lines go out by
 * one write each: no stdio buffer that a crash, a vfork child or a second thread could double or lose.
 */
#ifndef NABLA_TAP_H
#define NABLA_TAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int tap_count;
static int tap_failures;

__attribute__((format(printf, 2, 3))) static inline void tap_write(int fd, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (length > (int)sizeof line - 1)
		length = sizeof line - 1;
	for (int done = 0; done < length;) {
		ssize_t n = write(fd, line + done, length - done);
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			done += n;
	}
}

static inline int tap_check(int good, int error, const char *file, int line, const char *text, const char *name)
{
	if (good) {
		tap_write(1, "ok %d - %s\n", ++tap_count, name);
		return 1;
	}
	tap_failures++;
	tap_write(1, "not ok %d - %s\n# %s:%d: %s (errno %d %s)\n", ++tap_count, name, file, line, text, error,
		  strerror(error));
	return 0;
}

/* CHECK(condition, "name"): reports one result; its value is the condition. */
#define CHECK(condition, name)                                                                       \
	({                                                                                           \
		int tap_good = !!(condition);                                                        \
		tap_check(tap_good, errno, __FILE__, __LINE__, #condition, name);                    \
	})

/* For features that this kernel or processor lacks; the reason is printed, nothing is hidden. */
static inline void tap_skip(const char *name, const char *reason)
{
	tap_write(1, "ok %d - %s # SKIP %s\n", ++tap_count, name, reason);
}

/* A figure or remark for the reader; never a result. */
#define tap_note(...)                             \
	do {                                      \
		tap_write(1, "# " __VA_ARGS__);   \
		tap_write(1, "\n");               \
	} while (0)

/* The plan line; the value is main's exit status. */
static inline int tap_done(void)
{
	tap_write(1, "1..%d\n", tap_count);
	return tap_failures != 0;
}

#endif
