/* SPDX-License-Identifier: Apache-2.0 */
/* --name: a socket through which clients control the VM, and the broker that serves it, a separate
 * process. */
#ifndef NABLA_CONTROL_H
#define NABLA_CONTROL_H

#include "console_log.h"
#include "control_wire.h"
#include "server.h"

#include <stdbool.h>

struct control {
	struct server broker;
	int folder;
	int listener;
	int link; /* packets from and to the broker; -1: none */
	int proc; /* -1: unknown */
};

/* Creates the socket; fails if a VM of this name runs. */
void control_open(const struct options *options, struct control *control);

/* Starts the broker, which gives this log to clients. Returns the VM's end of the stream, -1 without --name. */
int control_start(const struct options *options, struct control *control, struct console_log *log);

void control_wait(struct control *control);

/* Reports a broker that has ended while the VM runs. */
void control_check(struct control *control);

/* Returns the next request of a client, an enum control_request; 0: none. */
int control_request(struct control *control);

/* Answers the request. */
void control_done(struct control *control);
void control_stats(struct control *control, const struct options *options, pid_t vm, uint64_t started_ns);

/* Removes the socket, and ends the broker. */
void control_end(struct control *control);

/* control_texts.c: the information about a VM for clients. */
struct broker_texts;
void control_describe(const struct options *options, pid_t launcher, struct broker_texts *texts);

#endif
