/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel is started, and with which words. */
#ifndef NABLA_KERNEL_H
#define NABLA_KERNEL_H

#include "network.h"
#include "options.h"

#include <stdbool.h>

struct kernel {
	const char *path;
	int fd; /* close-on-exec, 16 or above; good for fexecve only */
};

/* Opens the kernel: that of the option, of $NABLA_KERNEL, or the first that exists beside our own binary. */
void kernel_open(const struct options *options, struct kernel *kernel);

/* Returns the kernel's argument vector, ended by NULL. terminal: the guest's console is a terminal, not a stream. */
char **kernel_arguments(const struct options *options, const struct kernel *kernel, const struct network *network,
			bool terminal);

#endif
