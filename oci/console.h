/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal of a container. */
#ifndef NABLA_OCI_CONSOLE_H
#define NABLA_OCI_CONSOLE_H

#include "container.h"

/*
 * Creates a terminal, sends its master to the socket at this path, and returns the slave, close-on-exec. Fails if the
 * process needs a terminal and there is no socket, or the reverse. Returns -1 if the process needs no terminal.
 */
int console_open(const struct process *process, const char *socket_path);

/* Makes it the controlling terminal and the standard streams of the calling process, a session leader. */
void console_become(int slave);

#endif
