/* SPDX-License-Identifier: Apache-2.0 */
/* Confinement of a file server: what is left to it when the guest's first message arrives. */
#ifndef NABLA_SHARE_CONFINE_H
#define NABLA_SHARE_CONFINE_H

#include <stdbool.h>

/*
 * Landlock: no file outside the directory behind the descriptor, and no write if read_only. Hosts without Landlock have only
 * the checks of the server; returns false with errno set if it exists and fails.
 */
bool confine_files(int directory, bool read_only);

/* Resource limits and the filter of system calls; another call kills the process. Returns false with errno set. */
bool confine_calls(void);

#endif
