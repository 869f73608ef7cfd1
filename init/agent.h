/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: runs programs and transfers files at the host's request on the control channel (nabla-run --name). It is part
 * of process 1 and shares its only wait. Any program in the guest can disturb it, like the rest of the guest.
 */
#ifndef NABLA_AGENT_H
#define NABLA_AGENT_H

#include "settings.h"

#include <signal.h>
#include <sys/types.h>

/* Opens the channel; without one, the agent has no sessions. */
void agent_open(const struct settings *settings);

/* Waits for a signal that the mask leaves unblocked, like sigsuspend(), or until the channel or a program has data. */
void agent_wait(const sigset_t *mask);

/* Does the work that is possible without waiting. */
void agent_work(void);

/* Handles the end of a child with this wait status. */
void agent_ended(pid_t pid, int raw);

#endif
