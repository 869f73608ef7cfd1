/* SPDX-License-Identifier: Apache-2.0 */
/* The tree that becomes the guest's root: the bundle's root directory with all binds, in a separate mount namespace. */
#ifndef NABLA_OCI_MOUNTS_H
#define NABLA_OCI_MOUNTS_H

#include "container.h"

/*
 * Enters a new mount namespace and makes the host's mounts in it. root: absolute, without symbolic links.
 * guest: the directory that appears as /proc until the guest mounts procfs there.
 */
void mounts_make(const struct container *c, const char *root, const char *guest);

#endif
