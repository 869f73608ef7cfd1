/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_OCI_CREATE_H
#define NABLA_OCI_CREATE_H

#include "cgroup.h"

struct creation {
	const char *id, *bundle, *pid_file, *console_socket; /* the last two: NULL if not given */
	enum cgroup_manager cgroups;
};

/* Creates a container: prepares everything, and starts its process, which waits for start. */
void container_create(const struct creation *creation);

#endif
