/* SPDX-License-Identifier: Apache-2.0 */
/* From a fork of the launcher to the first instruction of the guest's kernel. */
#ifndef NABLA_START_H
#define NABLA_START_H

#include "vm.h"

#include <signal.h>

/* Returns the VM's process, or fails. Its signals are those of the mask. */
pid_t vm_start(const struct vm *vm, const sigset_t *mask);

#endif
