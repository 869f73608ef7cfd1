/* SPDX-License-Identifier: Apache-2.0 */
/* What a call of an engine and the process that it leaves behind tell each other, and the engine. */
#ifndef NABLA_OCI_LINK_H
#define NABLA_OCI_LINK_H

#include <sys/types.h>

/* Makes a pair of ends, the first one for the call: one message for each step, and an error is one message as well. */
void link_make(int ends[2]);

/* Waits for a step of the other process; reports its error if there is one. */
void link_wait(int link);

/* Reports a step; ends this process if nobody listens. */
void link_done(int link);

/* Writes the file of --pid-file. */
void write_pid_file(const char *path, pid_t pid);

#endif
