/* SPDX-License-Identifier: Apache-2.0 */
/* What a process may do that handles bytes of a guest. */
#ifndef NABLA_OCI_CONFINE_H
#define NABLA_OCI_CONFINE_H

#include <stdbool.h>

/* Gives up all capabilities, and all system calls but those for open descriptors. Returns false with errno set. */
bool confine_self(void);

#endif
