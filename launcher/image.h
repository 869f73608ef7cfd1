/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images: opened, checked and locked before the VM starts. */
#ifndef NABLA_IMAGE_H
#define NABLA_IMAGE_H

#include "options.h"

struct disk_file {
	int fd; /* close-on-exec, FD_HIGH or above */
	uint64_t size;
};

/*
 * Opens an image. The root image must hold an ext2, ext3 or ext4 file system; other images may hold anything. Readers
 * share an image, a writer locks it exclusively: a second writer would destroy the file system. The lock is released
 * when both the launcher and the VM have closed the descriptor.
 */
void image_open(const struct disk *disk, bool is_root, bool follow_symlinks, struct disk_file *file);

/* Returns true if the guest's writes reach the file. */
bool image_is_written(const struct disk *disk);

#endif
