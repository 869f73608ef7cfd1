/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt(1): a process of its own that is the guest's network. It needs no privilege but user namespaces, in which it
 * locks itself up. It speaks Ethernet on a stream socket with us, and ends when the other end of that is closed.
 */
#ifndef NABLA_HELPER_H
#define NABLA_HELPER_H

#include "options.h"

#include <sys/types.h>

/* Starts it and waits until published ports answer; fails with one line if it cannot. *fd: the VM's end. */
pid_t helper_start(const struct net *net, int *fd);

const char *const *helper_command(const struct net *net);

void helper_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to);

/* Waits for its end; the VM's end of the socket is closed by then everywhere. */
void helper_end(pid_t helper);

#endif
