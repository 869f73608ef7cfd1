/* SPDX-License-Identifier: Apache-2.0 */
/* ps: the processes of a container. */
#ifndef NABLA_OCI_PROCESSES_H
#define NABLA_OCI_PROCESSES_H

#include <stdbool.h>

/*
 * Prints a table of the guest's processes; json: the IDs of the processes on the host that are its VM, servers and programs of
 * exec, which is what containerd asks for.
 */
void container_ps(const char *id, bool json);

#endif
