/* SPDX-License-Identifier: Apache-2.0 */
/* The command of a container: user, groups, capabilities, limits, then execve. */
#ifndef NABLA_OCI_GUEST_BECOME_H
#define NABLA_OCI_GUEST_BECOME_H

#include "words.h"

#include <stdbool.h>
#include <sys/types.h>

/* Returns its process ID, or its negated exit status if the child could not become the command, which it reports. */
pid_t command_start(const struct words *words, bool terminal);

#endif
