/* SPDX-License-Identifier: Apache-2.0 */
/* The VM as a child process: started, watched, ended. */
#ifndef NABLA_VM_H
#define NABLA_VM_H

#include "descriptors.h"
#include "kernel.h"
#include "limits.h"
#include "network.h"
#include "options.h"

/* All that a VM is made of. */
struct vm {
	const struct options *options;
	struct kernel kernel;
	char **arguments;
	int descriptors[FD_COUNT]; /* what becomes descriptor 0, 1, 2 …; -1: closed */
	struct limit limits[LIMITS];
	struct network network;
	bool terminal;	     /* the guest has one */
	int stats_fd;	     /* -1: none */
	uint64_t started_ns; /* when we were started */
};

/*
 * Starts the VM, gives up all that only it needs from then on, waits until it ends, and returns the exit status for our
 * caller: the guest's own, or 128+N if signal N ended the VM or us.
 */
int vm_run(struct vm *vm);

#endif
