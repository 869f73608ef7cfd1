/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of memory shared with the guest's kernel: the window's size goes in, times and counters come out. The guest
 * can write whatever it likes there, so nothing but numbers is taken from it.
 */
#ifndef NABLA_STATUS_H
#define NABLA_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATUS_CALLS 16

/* What the guest says of itself. */
struct status {
	uint64_t boot_ns; /* CLOCK_MONOTONIC when its kernel began; 0: unknown */
	uint64_t user_ns; /* and at the first instruction of its init; 0: unknown */
	size_t count;
	struct {
		uint32_t number; /* of a system call of the host */
		uint64_t count;
	} calls[STATUS_CALLS];
};

/* Makes the page and returns its descriptor, close-on-exec, 16 or above. Its size is sealed. */
int status_create(void);

/* Tells the guest how large the terminal's window is; for a guest without a terminal that is never looked at. */
void status_set_window(bool terminal);

/* Times outside from..to, which cannot be, are unknown. */
void status_read(struct status *status, uint64_t from, uint64_t to);

/* Has the guest's first program begun? */
bool status_user_started(void);

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t now_ns(void);

#endif
