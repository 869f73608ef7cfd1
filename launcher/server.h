/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers: processes that are parts of nabla-run, at the other end of a stream of the VM. They begin with the launcher's
 * rights, give up what they do not need, confine themselves, and say that they are ready.
 */
#ifndef NABLA_SERVER_H
#define NABLA_SERVER_H

#include "options.h"

#include <sys/types.h>

/* Standard error, until the server is ready; then what it serves with, and last where it says that it is ready. */
#define SERVER_STDERR 2
#define SERVER_FIRST 3

struct server {
	pid_t pid; /* 0: it has ended */
	int ready; /* where it says that it serves; -1: none */
};

/* Both ends of the VM's stream, and where the server says that it is ready. */
struct server_ends {
	int vm, own, ready;
};

/* Forks. In the child it returns true; vm is closed there. In the launcher it returns false; own and ready are closed. */
bool server_fork(struct server *server, struct server_ends *ends);

/* In the child: leaves the terminal, and drops what nabla-run drops for the VM. */
void server_drop(const struct options *options);

/* Moves count descriptors to SERVER_FIRST and following, and closes all others but standard error. */
void server_keep(const int *descriptors, size_t count);

/* Applies the limits of the VM, and lets the server die with the launcher, whose process ID this is. */
void server_limit(const struct options *options, pid_t launcher);

/* Says that the server is ready, and closes standard error. */
void server_ready(int ready);

/* In the launcher: waits until the server is ready; fails if it cannot serve. what: its name in messages. */
void server_wait(struct server *server, const char *what);

/* Waits until all of count servers have ended, at most 5 seconds. check() is called to reap them. */
void server_end(struct server *const *servers, size_t count, void (*check)(void *), void *context);

/* As server_end() gave up. */
#define SERVER_END_S 5

#endif
