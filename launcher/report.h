/* SPDX-License-Identifier: Apache-2.0 */
/* What --json and --stats-fd write: one object of JSON in one line each. */
#ifndef NABLA_REPORT_H
#define NABLA_REPORT_H

#include <stdint.h>

/* How a machine ended. All times are CLOCK_MONOTONIC, in nanoseconds. */
struct ending {
	int status;	    /* exit status of nabla-run */
	int signal;	    /* that ended the machine, 0: none */
	const char *reason; /* a word */
	uint64_t started_ns; /* we, not the machine */
	uint64_t ended_ns;
	long peak_kib;
};

/* Writes to standard error. */
void report_end(const struct ending *ending);

/* Writes to fd if there is room for it; returns -1 when nobody reads there any more. */
int report_running(int fd, uint64_t started_ns);

/* Returns the name of a system call of the host, or NULL. */
const char *call_name(uint64_t number);

#endif
