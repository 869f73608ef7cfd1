/* SPDX-License-Identifier: Apache-2.0 */
/* Confinement of a server of nabla-run: the rights that it keeps when the guest's first message arrives. */
#ifndef NABLA_CONFINE_H
#define NABLA_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Landlock: no file outside the directory behind the descriptor (-1: none at all), and no write if read_only. Hosts without
 * Landlock have only the checks of the server; returns false with errno set if it exists and fails.
 */
bool confine_files(int directory, bool read_only);

/*
 * Sets resource limits, of which `memory` limits the address space, and the filter of system calls: it permits the given
 * calls, most frequent first, and mmap and mprotect without PROT_EXEC. Any other call kills the process. Returns false with
 * errno set.
 */
bool confine_calls(const uint16_t *calls, size_t count, uint64_t memory);

#endif
