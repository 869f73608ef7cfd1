/* SPDX-License-Identifier: Apache-2.0 */
/* --max-cow: a limit for the VM's private memory on the host, which changes to copy-on-write disks add to. */
#ifndef NABLA_MEMORY_WATCH_H
#define NABLA_MEMORY_WATCH_H

#include "options.h"

struct memory_watch {
	int proc;   /* the host's /proc; -1: there is no limit */
	int status; /* /proc/PID/status of the VM */
	uint64_t limit_kib;
};

/* Called before the launcher enters a jail, where there is no /proc. */
void memory_watch_open(struct memory_watch *watch, const struct options *options);

void memory_watch_start(struct memory_watch *watch, pid_t vm);

/* Returns true if the VM uses more memory than --memory and --max-cow allow together. */
bool memory_watch_exceeded(const struct memory_watch *watch);

#endif
