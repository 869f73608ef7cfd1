/* SPDX-License-Identifier: Apache-2.0 */
/* --max-output and --name: the VM writes to pipes; the launcher passes a limited number of bytes on, and keeps the last ones. */
#ifndef NABLA_OUTPUT_H
#define NABLA_OUTPUT_H

#include "console_log.h"
#include "options.h"

#include <poll.h>

#define OUTPUT_STREAMS 2

struct output_stream {
	int from; /* a pipe; -1: closed */
	int to;
	bool socket;
	bool counted; /* for the limit */
	size_t most; /* bytes that a writable file takes without blocking */
	size_t start, end; /* of the unwritten part of the buffer */
	char buffer[65536];
};

struct output {
	bool active;
	bool exceeded; /* the VM has written more than the limit */
	uint64_t left; /* bytes until then */
	struct console_log *log; /* NULL: nothing is kept */
	struct output_stream streams[OUTPUT_STREAMS];
};

/*
 * Without a limit and without a name, does nothing. Otherwise replaces the VM's descriptors 1 and 2: with a limit those that store
 * something, with a name those that are no terminal.
 */
void output_open(struct output *output, const struct options *options, int descriptors[]);

/* Fills in the events to wait for, OUTPUT_STREAMS entries. */
void output_prepare(const struct output *output, struct pollfd *events);

/* Reads and writes as far as possible without blocking. */
void output_handle(struct output *output, const struct pollfd *events);

/* Returns true until all output has been passed on and the VM has closed its pipes. */
bool output_pending(const struct output *output);

#endif
