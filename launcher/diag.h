/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the launcher: one line each, on standard error, in front of them the program's name. */
#ifndef NABLA_DIAG_H
#define NABLA_DIAG_H

#include <stdbool.h>

#define EXIT_OWN_ERROR 125 /* the launcher itself failed; the guest's statuses are all others */
#define EXIT_TIMEOUT 124   /* as timeout(1) has it */

/* Tells what went wrong and, where hint is not NULL, what to do about it; then ends with EXIT_OWN_ERROR. */
_Noreturn void fail(const char *hint, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same without an end. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs f before fail() writes: the terminal must be back in its own mode by then. */
void on_failure(void (*f)(void));

/* While the terminal is raw, a line feed does not begin a new line by itself. */
void set_raw_line_ends(bool raw);

#endif
