/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_CONTROL_REMOVER_H
#define NABLA_CONTROL_REMOVER_H

#include "server.h"

struct remover {
	struct server process;
	int pipe; /* its end lets the process go on; -1: there is none */
};

/* Starts a process that removes the socket in the folder when this one ends, if this one will not have the right. */
void remover_start(const struct options *options, int folder, const char *name, struct remover *remover);

/* Lets it remove the socket, and waits for that. */
void remover_end(struct remover *remover);

#endif
