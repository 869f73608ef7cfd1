/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that stands on the host for a program of exec: engines wait for it, signal it, and give it standard streams. It
 * passes all of that on.
 */
#ifndef NABLA_OCI_PROXY_H
#define NABLA_OCI_PROXY_H

#include "container.h"
#include "state.h"

struct proxy {
	const struct state *state;
	const char *words; /* of the process, guest/protocol.h */
	size_t length;
	const char *program; /* for messages */
	bool terminal;
	int slave; /* of the terminal; -1: the standard streams are it, if there is one */
	int channel;
	int link; /* to the call of the engine, which this process outlives; -1: this is the call */
	const char *pid_file; /* written when the program has started; NULL: none */
};

/* Ends with the exit status of the program, 128 and the number if a signal ended it. */
_Noreturn void proxy_run(const struct proxy *proxy);

#endif
