/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of memory shared with the guest's kernel. The launcher writes the window size, the kernel writes times and
 * counters. The guest can write arbitrary data to the page, so the launcher only reads numbers from it.
 */
#ifndef NABLA_STATUS_H
#define NABLA_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATUS_CALLS 16

/* The guest's report about itself. */
struct status {
	uint64_t boot_ns; /* CLOCK_MONOTONIC at the kernel's start; 0: unknown */
	uint64_t user_ns; /* CLOCK_MONOTONIC at the first instruction of init; 0: unknown */
	size_t count;
	struct {
		uint32_t number; /* of a host system call */
		uint64_t count;
	} calls[STATUS_CALLS];
};

/* Creates the page and returns its descriptor, close-on-exec, FD_HIGH or above. The size is sealed. */
int status_create(void);

/* Records in the page that the console is a terminal, and the size of its window if it has one. */
void status_set_window(bool terminal);

/* Reads the guest's report. Times outside from..to are impossible and count as unknown. */
void status_read(struct status *status, uint64_t from, uint64_t to);

/* Returns true once the guest's first program has started. */
bool status_user_started(void);

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t now_ns(void);

#endif
