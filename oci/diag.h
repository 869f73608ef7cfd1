/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the runtime: one line each, on standard error and in the engine's log. */
#ifndef NABLA_OCI_DIAG_H
#define NABLA_OCI_DIAG_H

#include <stdbool.h>

#define EXIT_FAILURE_OWN 1 /* engines expect 1 from a failed runtime */

/* Also writes messages to this file, as text or JSON; path NULL: to none. Fails if it cannot be opened. */
void log_open(const char *path, bool json);

/* From now on, fail() writes its line only to this descriptor: the parent process reports it. */
void log_to_parent(int fd);

/* Reports a line that log_to_parent() brought, and exits. */
_Noreturn void fail_with_line(const char *line);

/* Reports the error and, unless it is NULL, a hint in parentheses; cleans up; then exits. */
_Noreturn void fail(const char *hint, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reports something that the user may not expect, and returns. If there is a log, only the log gets the
 * message. */
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Registers a function that fail() calls before it exits; NULL: none. */
void on_failure(void (*f)(void));

#endif
