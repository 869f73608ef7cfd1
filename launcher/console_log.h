/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last bytes that a named VM wrote to its console, for nabla logs: memory that nabla-run writes and the broker reads. Neither
 * waits for the other.
 */
#ifndef NABLA_CONSOLE_LOG_H
#define NABLA_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#define CONSOLE_LOG 262144 /* bytes; a connection of the broker has room for all of them */

struct console_log {
	_Atomic uint64_t written; /* since the start; the last CONSOLE_LOG of them are kept */
	uint8_t bytes[CONSOLE_LOG];
};

/* Returns an empty log, which no child process has; NULL without memory. */
struct console_log *console_log_create(void);

/* Lets the next child process have it, or not. */
void console_log_share(struct console_log *log, int share);

void console_log_add(struct console_log *log, const void *bytes, size_t length);

/* Copies what is kept, CONSOLE_LOG bytes at most, and returns its length. */
size_t console_log_copy(const struct console_log *log, uint8_t *to);

#endif
