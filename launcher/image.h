/* SPDX-License-Identifier: Apache-2.0 */
/* The disk image: opened, looked at and locked before anything else happens. */
#ifndef NABLA_IMAGE_H
#define NABLA_IMAGE_H

#include <stdbool.h>

/*
 * Opens an ext2, ext3 or ext4 image and returns its descriptor. Many VMs may read an image at a time, but who writes to
 * it has it alone: a second writer would destroy it. The lock lasts as long as the descriptor, in us or in the VM.
 */
int image_open(const char *path, bool writable, bool read_only_root);

#endif
