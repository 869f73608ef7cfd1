/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent does for nabla-oci. */
#ifndef NABLA_OCI_GUEST_PROGRAM_H
#define NABLA_OCI_GUEST_PROGRAM_H

#include <sys/types.h>

/* Names the container's first process, which signals are for. */
void program_first(pid_t pid);

#endif
