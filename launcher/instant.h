/* SPDX-License-Identifier: Apache-2.0 */
/* Instant start: a VM without writable disks resumes from a snapshot of its boot, which the first start creates. */
#ifndef NABLA_INSTANT_H
#define NABLA_INSTANT_H

#include "image.h"
#include "options.h"
#include "vm.h"

/*
 * Decides how the VM starts, and records it in vm->start. If the VM resumes from a snapshot, sets options->restore and
 * vm->snapshot as --restore would. Nothing here is an error: an obstacle to an instant start is a reason to boot. Called
 * once all files except the network are open, before privileges are dropped.
 */
void instant_start(struct vm *vm, struct options *options, const struct disk_file *files);

#endif
