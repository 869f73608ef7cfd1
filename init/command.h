/* SPDX-License-Identifier: Apache-2.0 */
/* The command for which the machine was started, and everything that it leaves behind. */
#ifndef NABLA_COMMAND_H
#define NABLA_COMMAND_H

#include "settings.h"

#define STATUS_NO_START 125
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127

/* Runs the command to its end, then ends what is still running. Returns its status; 128+N if signal N ended it. */
int command_run(struct settings *settings);

#endif
