/* SPDX-License-Identifier: Apache-2.0 */
/* The command of a container: user, groups, capabilities, limits, then execve. */
#ifndef NABLA_OCI_GUEST_BECOME_H
#define NABLA_OCI_GUEST_BECOME_H

#include "words.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Starts the command that the words describe. streams: its standard streams; NULL: those of the host, or the console if
 * `terminal`. Otherwise, `terminal` says that streams are a terminal that it shall control. Returns 0, or an error number with
 * *stage, an enum guest_stage. Nothing of the words is used afterwards.
 */
int command_try(const struct words *words, const int streams[3], bool terminal, pid_t *pid, uint32_t *stage);

/* Starts the command of the container. Returns its process ID, or its negated exit status if the child could not become the command, which it reports. */
pid_t command_start(const struct words *words, bool terminal);

#endif
