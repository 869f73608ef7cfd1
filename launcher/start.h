/* SPDX-License-Identifier: Apache-2.0 */
/* From a fork of the launcher to the first instruction of the guest's kernel. */
#ifndef NABLA_START_H
#define NABLA_START_H

#include "vm.h"

#include <sys/types.h>

/* Returns the VM's process, or fails. No signal is blocked there, whatever we and our caller block. */
pid_t vm_start(const struct vm *vm);

#endif
