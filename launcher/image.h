/* SPDX-License-Identifier: Apache-2.0 */
/* The disks: opened, looked at and locked before anything else happens. */
#ifndef NABLA_IMAGE_H
#define NABLA_IMAGE_H

#include "options.h"

struct disk_file {
	int fd; /* close-on-exec, 16 or above */
	uint64_t size;
};

/*
 * Opens an image. The root image holds an ext2, ext3 or ext4 file system, others may hold anything. Many VMs may read
 * an image at a time, but who writes to it has it alone: a second writer would destroy it. The lock lasts as long as
 * the descriptor, in us or in the VM.
 */
void image_open(const struct disk *disk, bool is_root, struct disk_file *file);

/* True if what the guest writes reaches the file. */
bool image_is_written(const struct disk *disk);

#endif
