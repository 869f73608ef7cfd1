/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel binary and its command line. */
#ifndef NABLA_KERNEL_H
#define NABLA_KERNEL_H

#include "network.h"
#include "options.h"

#include <stdbool.h>

struct kernel {
	const char *path;
	int fd; /* close-on-exec, FD_HIGH or above; opened with O_PATH, for execveat only */
};

/* Opens the kernel given by --kernel or $NABLA_KERNEL, else the first one found near the launcher's binary. */
void kernel_open(const struct options *options, struct kernel *kernel);

/* Returns the kernel's NULL-terminated argument vector. terminal: the guest's console is a terminal, not a stream. */
char **kernel_arguments(const struct options *options, const struct kernel *kernel, const struct network *network,
			bool terminal);

#endif
