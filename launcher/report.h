/* SPDX-License-Identifier: Apache-2.0 */
/* The output of --json and --stats-fd: one JSON object per line. */
#ifndef NABLA_REPORT_H
#define NABLA_REPORT_H

#include <stdint.h>

/* How a VM ended. All times are CLOCK_MONOTONIC, in nanoseconds. */
struct ending {
	int status;	    /* exit status of nabla-run */
	int signal;	    /* that ended the VM, 0: none */
	const char *reason; /* see the manual: exit, signal, terminated, timeout */
	uint64_t started_ns; /* the launcher, not the VM */
	uint64_t ended_ns;
	long peak_kib;
	const char *why_cold; /* why the VM booted; NULL: it was restored */
};

/* Writes the final report to standard error. */
void report_end(const struct ending *ending);

/* Writes a progress report to fd unless that would block. Returns -1 if the reader is gone. */
int report_running(int fd, uint64_t started_ns);

/* Returns the name of a host system call, or NULL. */
const char *call_name(uint64_t number);

#endif
