/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_DRY_RUN_H
#define NABLA_DRY_RUN_H

#include "vm.h"

/* Prints what vm_run() would do, one property per line. */
void dry_run_print(const struct vm *vm);

#endif
