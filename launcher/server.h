/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers: processes of nabla-run at the other end of a stream of the VM. They start with the launcher's rights, give up
 * the rights that they do not need, confine themselves, and report that they are ready.
 */
#ifndef NABLA_SERVER_H
#define NABLA_SERVER_H

#include "options.h"

#include <sys/types.h>

/* Standard error, until the server is ready; then the server's own descriptors, and last the one on which it reports
 * ready. */
#define SERVER_STDERR 2
#define SERVER_FIRST 3

struct server {
	pid_t pid; /* 0: it has ended */
	int ready; /* on which it reports that it is ready; -1: none */
};

/* Both ends of the VM's stream, and the pipe on which the server reports that it is ready. */
struct server_ends {
	int vm, own, ready;
};

/* Forks. In the child it returns true; vm is closed there. In the launcher it returns false; own and ready are closed. */
bool server_fork(struct server *server, struct server_ends *ends);

/* In the child: leaves the terminal, and drops the privileges that nabla-run drops for the VM. */
void server_drop(const struct options *options);

/* Moves count descriptors to SERVER_FIRST and the following numbers, and closes all others except standard error. */
void server_keep(const int *descriptors, size_t count);

/* Applies the limits of the VM, and lets the server die with the launcher, whose process ID this is. */
void server_limit(const struct options *options, pid_t launcher);

/* Reports that the server is ready, and closes standard error. */
void server_ready(int ready);

/* In the launcher: waits until the server is ready; fails if it cannot serve. what: its name in messages. */
void server_wait(struct server *server, const char *what);

/* Waits until all of count servers have ended, at most 5 seconds. check() is called to reap them. */
void server_end(struct server *const *servers, size_t count, void (*check)(void *), void *context);

/* What server_end() does after its time limit. */
#define SERVER_END_S 5

#endif
