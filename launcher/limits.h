/* SPDX-License-Identifier: Apache-2.0 */
/* The resource limits of the VM. */
#ifndef NABLA_LIMITS_H
#define NABLA_LIMITS_H

#include "image.h"
#include "options.h"

#include <sys/resource.h>

struct limit {
	const char *name; /* as setrlimit(2) has it */
	int resource;
	rlim_t value;
};

#define LIMITS 5

/* Fails if our caller's own limits do not leave the VM what it needs. */
void limits_choose(const struct options *options, const struct disk_file *disks, struct limit limits[LIMITS]);

/* For the process that becomes the VM; false: see errno. */
bool limits_set(const struct limit limits[LIMITS]);

#endif
