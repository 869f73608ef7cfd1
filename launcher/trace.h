/* SPDX-License-Identifier: Apache-2.0 */
/* --trace-policy: a VM whose forbidden calls are logged and let through. */
#ifndef NABLA_TRACE_H
#define NABLA_TRACE_H

#include <sys/types.h>

/* Says loudly that there is no border now. */
void trace_warn(void);

/* Becomes the tracer of a child that has not called execve yet; it dies with us. */
void trace_attach(pid_t pid);

/* Looks at why the child stopped, and lets it go on. */
void trace_step(pid_t pid, int status);

#endif
