/* SPDX-License-Identifier: Apache-2.0 */
/* The properties that a snapshot of a boot must match: host, kernel, images, and options that are fixed at the boot. */
#ifndef NABLA_FIT_H
#define NABLA_FIT_H

#include "cache.h"
#include "image.h"
#include "options.h"
#include "vm.h"

#include <stdbool.h>
#include <stdint.h>

/* A file that has changed since then has another time of change, or is another file. */
struct file_identity {
	uint64_t device, inode, size, kind;
	int64_t modified[2], changed[2]; /* seconds, nanoseconds */
};

/* Compared byte by byte: it has no padding. */
struct fit {
	char launcher[64]; /* version and layout */
	/*
	 * The host's boot ID. The processor does not change during one boot, and a file that a crash of the host has
	 * damaged is from an earlier boot.
	 */
	char boot[40];
	uint64_t hwcap[2];
	uint64_t memory;
	uint64_t window; /* is there room for the addresses of reservations? */
	uint32_t terminal, verbose;
	struct file_identity kernel, disks[DISKS_MAX];
};

/* Returns false, with the reason, if there is nothing to compare. */
bool fit_describe(struct fit *fit, const struct vm *vm, const struct disk_file *files, const char **why);

/* Returns true if a file has changed so recently that another change could have the same time. */
bool fit_is_fresh(const struct fit *fit);

/* The name of the snapshot in the cache folder. */
void fit_name(const struct fit *fit, char name[CACHE_NAME_MAX]);

#endif
