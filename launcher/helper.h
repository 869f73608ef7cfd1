/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt(1), a separate process that connects the guest to the host's network. It needs no privilege except user
 * namespaces, which it uses to confine itself. It exchanges Ethernet frames with the VM over a stream socket and exits
 * when the VM's end is closed.
 */
#ifndef NABLA_HELPER_H
#define NABLA_HELPER_H

#include "options.h"

#include <sys/types.h>

/* Starts passt and waits until it listens on the published ports. Stores the VM's end of the socket in *fd. */
pid_t helper_start(const struct net *net, int *fd);

const char *const *helper_command(const struct net *net);

void helper_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to);

/* Waits until passt exits. All copies of the VM's end of the socket must be closed. */
void helper_end(pid_t helper);

#endif
