/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command gets as its standard streams: the console when the launcher sits at a terminal, else the host's own
 * standard input, output and error as the kernel offers them in /dev/host: plain bytes, an end of file, and error
 * messages apart from the output.
 */
#ifndef NABLA_STREAM_H
#define NABLA_STREAM_H

#include <stdbool.h>

/* Sets the console up as a terminal for a person. */
void console_mode(void);

/* Puts the host's streams on descriptors 0 to 2. Returns false, with errno set, if the kernel does not offer them. */
bool open_host_streams(void);

#endif
