/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence: a network namespace of its own for passt, in which nftables enforces the network rules. passt ends the guest's
 * connections there and begins them again from ordinary sockets, so that no frame of the guest meets a rule or the host. The
 * only way out is the device of pasta(1), a process on the host's network. Both programs come from the package passt.
 *
 *   VM ══ passt ── sockets ── nftables ── gate0 ══ pasta ── sockets ── the host's network
 *         └───────── user and network namespace ┘
 *
 * A process of nabla-run, the fence's keeper, creates it, looks up the names, and reports denials.
 */
#ifndef NABLA_FENCE_H
#define NABLA_FENCE_H

#include "options.h"

#include <sys/types.h>

/* Starts the keeper, with passt's command line and the VM's and passt's end of a socket; closes the latter. Returns its process ID. */
pid_t fence_start(const struct options *options, const char *const *passt, int pair[2]);

/* Calls add() with host=ADDRESS NAME for each address of an allowed name, and with dns= for the host's name server if it is allowed. */
void fence_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to);

/* Returns pasta's command line; the last word, a process ID, is left out. */
const char *const *fence_command(const struct net *net);

#endif
