/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel is started, and with which words. */
#ifndef NABLA_KERNEL_H
#define NABLA_KERNEL_H

#include "options.h"

#include <stdbool.h>

/* The kernel finds the image at this descriptor. */
#define IMAGE_FD 3

/* Returns the kernel's path: the option, $NABLA_KERNEL, or the first that exists beside our own binary. */
const char *kernel_find(const struct options *options);

/* Returns the kernel's argument vector, ended by NULL. terminal: the guest's console is a terminal, not a stream. */
char **kernel_arguments(const struct options *options, const char *path, bool terminal);

#endif
