/* SPDX-License-Identifier: Apache-2.0 */
/* The cgroup of a container's processes on the host, version 2. */
#ifndef NABLA_OCI_CGROUP_H
#define NABLA_OCI_CGROUP_H

#include "container.h"

enum cgroup_manager { CGROUP_FS, CGROUP_SYSTEMD, CGROUP_DISABLED };

/*
 * Creates the cgroup that the bundle names, and sets its limits. Returns its path on the host, NULL if there is none;
 * fails if the bundle requests limits that the host does not provide.
 */
const char *cgroup_create(const struct container *c, enum cgroup_manager manager);

/* Moves the calling process into it. */
void cgroup_join(const char *path);

/* Kills its remaining processes, and removes it. */
void cgroup_remove(const char *path);

#endif
