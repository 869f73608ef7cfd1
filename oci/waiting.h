/* SPDX-License-Identifier: Apache-2.0 */
/* The container's process, from create to start. */
#ifndef NABLA_OCI_WAITING_H
#define NABLA_OCI_WAITING_H

#include "container.h"

#include <sys/types.h>

struct waiting {
	const struct container *container;
	const char *root;	 /* of the container, absolute */
	const char *state;	 /* the directory of the state */
	const char *guest;	 /* the directory of the guest's first program */
	const char *fifo;	 /* which start reads */
	const char *cgroup;	 /* to join; NULL: none */
	uid_t uid;		 /* of the VM, in the user namespace where it runs */
	gid_t gid;
	int slave;		 /* the terminal; -1: none */
	int link;		 /* to create: one message after each step */
};

/* Prepares namespaces, waits for start, and becomes nabla-run. */
_Noreturn void wait_for_start(const struct waiting *w);

#endif
