/* SPDX-License-Identifier: Apache-2.0 */
/* --trace-policy: a VM whose forbidden host calls are logged and allowed. */
#ifndef NABLA_TRACE_H
#define NABLA_TRACE_H

#include <sys/types.h>

/* Prints a warning that the policy is not enforced. */
void trace_warn(void);

/* Attaches to a child before its execve. The child is killed when the launcher exits. */
void trace_attach(pid_t pid);

/* Handles a stop of the child and resumes it. */
void trace_step(pid_t pid, int status);

#endif
