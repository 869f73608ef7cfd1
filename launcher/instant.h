/* SPDX-License-Identifier: Apache-2.0 */
/* Instant start: a VM whose disks stay as they are goes on from a snapshot of its boot, which the first start makes. */
#ifndef NABLA_INSTANT_H
#define NABLA_INSTANT_H

#include "image.h"
#include "options.h"
#include "vm.h"

/*
 * Decides how the VM starts, and notes it in vm->start. If it goes on from a snapshot, sets options->restore and
 * vm->snapshot as --restore would. Nothing here is an error: what prevents an instant start is a reason to boot. Called
 * once all files but the network are open, before privileges are dropped.
 */
void instant_start(struct vm *vm, struct options *options, const struct disk_file *files);

#endif
