/* SPDX-License-Identifier: Apache-2.0 */
/* nabla-snapshot, the guest's command to save the VM: another name for this program. */
#ifndef NABLA_SNAPSHOT_H
#define NABLA_SNAPSHOT_H

#include <stdbool.h>

/* Returns true if the program was started under that name. */
bool is_snapshot_command(const char *name);

/*
 * Does the work that restored VMs need not repeat. Files stay open in this process: closing one would take more of a
 * restored VM's time than anything else here.
 */
void snapshot_prepare(void);

/* Saves the booted VM; called later, perhaps in a child. Returns true in this VM and in restored ones, false on failure. */
bool snapshot_boot(void);

/* Returns the exit status. */
int snapshot_main(char **argv);

#endif
