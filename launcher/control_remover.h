/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_CONTROL_REMOVER_H
#define NABLA_CONTROL_REMOVER_H

#include "server.h"

struct remover {
	struct server process;
	int pipe; /* closing it lets the process continue; -1: there is none */
};

/* Starts a process that removes the socket in the folder when this one ends, if this one will lack the
 * permission. */
void remover_start(const struct options *options, int folder, const char *name, struct remover *remover);

/* Lets it remove the socket, and waits until it has. */
void remover_end(struct remover *remover);

#endif
