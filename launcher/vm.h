/* SPDX-License-Identifier: Apache-2.0 */
/* The VM as a child process: start, supervision, end. */
#ifndef NABLA_VM_H
#define NABLA_VM_H

#include "control.h"
#include "descriptors.h"
#include "kernel.h"
#include "limits.h"
#include "memory_watch.h"
#include "network.h"
#include "options.h"
#include "output.h"
#include "share.h"
#include "snapshot.h"

/* How the VM starts. */
struct start {
	bool restored;
	const char *why; /* why it boots; NULL: it is restored */
};

/* Everything that defines a VM. */
struct vm {
	const struct options *options;
	struct kernel kernel;
	char **arguments;
	int descriptors[FD_COUNT]; /* sources of the VM's descriptors 0, 1, 2 …; -1: closed */
	struct limit limits[LIMITS];
	struct network network;
	struct share_process shares[SHARES_MAX];
	struct control control;
	struct output output;
	struct memory_watch memory;
	struct snapshot snapshot;
	struct start start;
	bool terminal;	     /* the guest's console is a terminal */
	int stats_fd;	     /* -1: none */
	uint64_t started_ns; /* start of the launcher, CLOCK_MONOTONIC */
};

/*
 * Starts the VM, closes the descriptors that only the VM needs, waits for its end, and returns the exit status of
 * nabla-run: the guest's status, or 128+N if signal N ended the VM or the launcher.
 */
int vm_run(struct vm *vm);

#endif
