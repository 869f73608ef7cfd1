/* SPDX-License-Identifier: Apache-2.0 */
/* Empty namespaces for the VM. */
#ifndef NABLA_JAIL_H
#define NABLA_JAIL_H

/*
 * Enters new mount, network, ipc and uts namespaces, and a pid namespace for the next child; an ordinary user also
 * enters a new user namespace. The new root directory is empty and read-only. Fails if the host forbids any of this.
 */
void jail_enter(void);

#endif
