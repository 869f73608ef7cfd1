/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: runs programs and passes files on for the host, which asks for that on the control channel (nabla-run --name).
 * It is a part of process 1, whose only wait it joins. Any program in the guest can disturb it, like all of the guest.
 */
#ifndef NABLA_AGENT_H
#define NABLA_AGENT_H

#include "settings.h"

#include <signal.h>
#include <sys/types.h>

/* Opens the channel; without it, the functions below do nothing beyond what they say. */
void agent_open(const struct settings *settings);

/* Waits for a signal that the mask leaves unblocked, like sigsuspend(), or until the channel or a program has something. */
void agent_wait(const sigset_t *mask);

/* Does what can be done without waiting. */
void agent_work(void);

/* Handles the end of a child with this wait status. */
void agent_ended(pid_t pid, int raw);

#endif
