/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command's standard streams: the console if the launcher runs on a terminal, otherwise the host's standard input,
 * output and error, which the kernel provides in /dev/host: plain bytes, an end of file, and separate error output.
 */
#ifndef NABLA_STREAM_H
#define NABLA_STREAM_H

#include <stdbool.h>

/* Sets the modes of an interactive terminal. */
void console_mode(void);

/* Opens the host's streams as descriptors 0 to 2. Returns false with errno set if the kernel does not provide them. */
bool open_host_streams(void);

#endif
