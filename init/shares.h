/* SPDX-License-Identifier: Apache-2.0 */
/* Host directories (nabla-run --mount). */
#ifndef NABLA_SHARES_H
#define NABLA_SHARES_H

#include <stdbool.h>

/* The launcher's own status for a VM that could not start its command. */
#define STATUS_NOT_STARTED 125

/* Mounts NAME:ro|rw:CACHE:PATH, NULL-terminated. Creates missing directories. Returns false if one cannot be mounted. */
bool mount_shares(char *const *mounts);

#endif
