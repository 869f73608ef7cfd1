/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the launcher: one line each on standard error, prefixed with the program's name. */
#ifndef NABLA_DIAG_H
#define NABLA_DIAG_H

#include <stdbool.h>

#define EXIT_OWN_ERROR 125 /* the launcher itself failed */
#define EXIT_TIMEOUT 124   /* the same as timeout(1) */

/* Prints the error and, unless it is NULL, a hint in parentheses; then exits with EXIT_OWN_ERROR. */
_Noreturn void fail(const char *hint, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with another status. */
_Noreturn void fail_with(int status, const char *hint, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The name of the program in messages; otherwise nabla-run. */
void diag_as(const char *program);

/* Prints a message without a hint and returns. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Registers a function that fail() calls before it prints; used to restore the terminal. */
void on_failure(void (*f)(void));

/* In raw mode a line feed does not return the carriage, so messages end with CR LF. */
void set_raw_line_ends(bool raw);

#endif
