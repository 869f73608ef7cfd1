/* SPDX-License-Identifier: Apache-2.0 */
/* nabla-snapshot, the guest's command to save the VM: another name of this program. */
#ifndef NABLA_SNAPSHOT_H
#define NABLA_SNAPSHOT_H

#include <stdbool.h>

/* Returns true if the program was started under that name. */
bool is_snapshot_command(const char *name);

/* Saves the booted VM. Returns true in this VM and in each one restored from it, false on failure. */
bool snapshot_boot(void);

/* Returns the exit status. */
int snapshot_main(char **argv);

#endif
