/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's command, and the processes that it leaves behind. */
#ifndef NABLA_COMMAND_H
#define NABLA_COMMAND_H

#include "settings.h"

#define STATUS_NO_START 125
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127

/* Applies the settings of the system. */
void command_configure(const struct settings *settings);

/*
 * Saves this VM. Restored VMs have little left to do: the process that saves the VM becomes the command, with that VM's
 * settings. Returns false if the VM cannot be saved.
 */
bool command_save(struct settings *settings, char **argv);

/* Runs the command, then stops all remaining processes. Returns its exit status, or 128+N if signal N ended it. */
int command_run(struct settings *settings);

#endif
