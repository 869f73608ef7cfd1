/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network device: a tap interface, an inherited descriptor, or a socket to a helper process. */
#ifndef NABLA_NETWORK_H
#define NABLA_NETWORK_H

#include "options.h"

#include <stdbool.h>
#include <sys/types.h>

struct network {
	int fd;       /* for the VM, close-on-exec, FD_HIGH or above; -1: no network */
	bool stream;  /* a stream socket: a 32-bit big-endian length precedes each frame */
	pid_t helper; /* process ID of the child, 0: none */
};

/*
 * Opens the device selected by --net. Called once, before privileges are dropped and signals are blocked. The helper
 * must exit by itself when the VM and the launcher are gone, even if SIGKILL ended them.
 */
void network_open(const struct options *options, struct network *network);

/* Returns the helper's NULL-terminated command line for --dry-run, or NULL if no helper is needed. */
const char *const *network_command(const struct options *options);

/* Calls add() once for each setting that init needs: address=, gateway=, dns=, mtu=. */
void network_settings(const struct options *options, void (*add)(void *to, const char *format, ...), void *to);

/* Stops the helper, if any, and waits for it. The launcher may have dropped all privileges since it started. */
void network_close(struct network *network);

#endif
