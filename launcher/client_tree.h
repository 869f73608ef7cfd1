/* SPDX-License-Identifier: Apache-2.0 */
/* nabla cp -r: directories, by tar in the guest. */
#ifndef NABLA_CLIENT_TREE_H
#define NABLA_CLIENT_TREE_H

/* Copies what is in a directory of the host into one of the VM, which is made if it is missing; and back. Each returns the exit status. */
int tree_in(const char *directory, const char *name, const char *path);
int tree_out(const char *name, const char *path, const char *directory);

#endif
