/* SPDX-License-Identifier: Apache-2.0 */
/* Starts the VM's process: from vfork to the first instruction of the guest's kernel. */
#ifndef NABLA_START_H
#define NABLA_START_H

#include "vm.h"

#include <sys/types.h>

/* Returns the VM's process ID, or fails. The VM starts with no signal blocked, regardless of the launcher's
 * signal mask. */
pid_t vm_start(const struct vm *vm);

#endif
