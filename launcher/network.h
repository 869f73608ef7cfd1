/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network device: a tap interface, a descriptor of our caller's, or a helper process that is the network. */
#ifndef NABLA_NETWORK_H
#define NABLA_NETWORK_H

#include "options.h"

#include <stdbool.h>
#include <sys/types.h>

struct network {
	int fd;       /* for the VM, close-on-exec, 16 or above; -1: no network */
	bool stream;  /* each frame comes and goes behind its length, 32 bits, big-endian */
	pid_t helper; /* a child of ours, 0: none */
};

/*
 * Opens what --net asks for, or fails with one line. Called once, before privileges are dropped and before signals are
 * blocked. The helper must end by itself when the VM and we are gone, whatever kills us.
 */
void network_open(const struct options *options, struct network *network);

/* Returns the helper's command line, ended by NULL, as --dry-run shows it; NULL: there is none. Starts nothing. */
const char *const *network_command(const struct options *options);

/* Tells init how to set the device up: calls add() once for each address=, gateway=, dns=, mtu=. */
void network_settings(const struct options *options, void (*add)(void *to, const char *format, ...), void *to);

/* Ends the helper, if any, and waits for it. We may have dropped all privileges since it was started. */
void network_close(struct network *network);

#endif
