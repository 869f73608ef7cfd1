/* SPDX-License-Identifier: Apache-2.0 */
/* nabla-snapshot, the guest's command to save the VM: another name of this program. */
#ifndef NABLA_SNAPSHOT_H
#define NABLA_SNAPSHOT_H

#include <stdbool.h>

/* Returns true if the program was started under that name. */
bool is_snapshot_command(const char *name);

/*
 * Does what need not be done in each VM that is restored. What is open stays open in this process: to close a file takes
 * more of such a VM's time than anything else here.
 */
void snapshot_prepare(void);

/* Saves the booted VM, later and perhaps in a child. Returns true in this VM and in each one restored from it, false on failure. */
bool snapshot_boot(void);

/* Returns the exit status. */
int snapshot_main(char **argv);

#endif
