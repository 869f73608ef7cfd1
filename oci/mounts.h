/* SPDX-License-Identifier: Apache-2.0 */
/* The tree that the guest gets as its root: the bundle's root directory with all binds, in a mount namespace of its own. */
#ifndef NABLA_OCI_MOUNTS_H
#define NABLA_OCI_MOUNTS_H

#include "container.h"

/*
 * Enters a new mount namespace and makes the mounts of the host in it. root: absolute, without symbolic links.
 * guest: the directory that appears as /proc, until the guest mounts procfs there.
 */
void mounts_make(const struct container *c, const char *root, const char *guest);

#endif
