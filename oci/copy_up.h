/* SPDX-License-Identifier: Apache-2.0 */
/* Copies the files that a tmpfs will hide into it. */
#ifndef NABLA_OCI_COPY_UP_H
#define NABLA_OCI_COPY_UP_H

#include <stdbool.h>

/*
 * Copies directories, regular files and symbolic links of one directory into another, with modes and owners. Other files
 * are left out: a VM could not use them. Returns false with errno set.
 */
bool copy_up(int from, int to);

#endif
