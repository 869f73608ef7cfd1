/* SPDX-License-Identifier: Apache-2.0 */
/* A VM that boots, saves itself before it would run a command, and ends. */
#ifndef NABLA_MAKER_H
#define NABLA_MAKER_H

#include "image.h"
#include "vm.h"

#include <stdbool.h>

/*
 * Starts it as a copy of vm without its command, streams and network, and waits for its end, at most some seconds.
 * file: where it saves itself; the file is complete only if its header is. No other process writes to the file afterwards.
 * Returns false if no process can be started.
 */
bool maker_run(const struct vm *vm, const struct disk_file *files, int file);

#endif
