/* SPDX-License-Identifier: Apache-2.0 */
/* The resource limits of the VM. */
#ifndef NABLA_LIMITS_H
#define NABLA_LIMITS_H

#include "image.h"
#include "options.h"

#include <sys/resource.h>

struct limit {
	const char *name; /* as in setrlimit(2) */
	int resource;
	rlim_t value;
};

#define LIMITS 6

/* Computes the limits. Fails if the launcher's own limits are lower than the VM needs. */
void limits_choose(const struct options *options, const struct disk_file *disks, struct limit limits[LIMITS]);

/* Returns true if the VM can have addresses for reservations: its kernel maps them only if the limit permits it. */
bool limits_permit_window(const struct options *options, const struct disk_file *disks);

/* Keeps this process, and those that it starts, on its current processor. */
void pin_to_processor(void);

/* Gives a file server the RLIMIT_CPU of the VM. Returns false with errno set on failure. */
bool limit_processor_time(const struct options *options);

/* Called in the process that becomes the VM. Returns false with errno set on failure. */
bool limits_set(const struct limit limits[LIMITS]);

#endif
