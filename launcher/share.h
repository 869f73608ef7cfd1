/* SPDX-License-Identifier: Apache-2.0 */
/* Shared directories: one file server, a separate process, for each. */
#ifndef NABLA_SHARE_H
#define NABLA_SHARE_H

#include "options.h"
#include "server.h"

struct share_process {
	struct server server;
	int directory; /* O_PATH, until it has started; -1: none */
};

/*
 * Opens the directories of --mount, and the root if that is a directory, and fails if one is not a directory. Call it
 * before images are opened: it marks a root that is a directory in the options.
 */
void shares_open(struct options *options, struct share_process shares[SHARES_MAX]);

/* Starts a server for each. Stores the VM's ends of their sockets in streams[SHARES_MAX]. */
void shares_start(const struct options *options, struct share_process shares[SHARES_MAX], int *streams);

/* Waits until all serve; fails if one cannot. */
void shares_wait(const struct options *options, struct share_process shares[SHARES_MAX]);

/* Reports servers that have ended while the VM runs. */
void shares_check(const struct options *options, struct share_process shares[SHARES_MAX]);

/*
 * Waits until all servers have handled the guest's requests and have ended; kills those that have not after 5 seconds. All
 * copies of the VM's ends must be closed.
 */
void shares_end(const struct options *options, struct share_process shares[SHARES_MAX]);

#endif
