/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of the VM's own, in which there is nothing. */
#ifndef NABLA_JAIL_H
#define NABLA_JAIL_H

/*
 * Enters new mount, network, ipc and uts namespaces, and a pid namespace for the next child; for an ordinary user in a
 * new user namespace. The root directory is an empty, read-only one afterwards. Fails if the host forbids any of that.
 */
void jail_enter(void);

#endif
