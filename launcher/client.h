/* SPDX-License-Identifier: Apache-2.0 */
/* nabla, the client of running VMs: declarations that its commands share. */
#ifndef NABLA_CLIENT_H
#define NABLA_CLIENT_H

#include "control_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define EXIT_BAD_INPUT 2

/* A connection to the broker of a VM. */
struct peer {
	const char *name; /* of the VM */
	int fd;
	uint8_t in[CONTROL_FRAME_MAX];
	size_t have, used;
};

/* Connects; fails if there is no such VM. */
void peer_open(struct peer *peer, const char *name);

/* Returns false if the broker is gone. */
bool peer_send(struct peer *peer, enum control_type type, int stream, const void *content, size_t length);

/* Returns the content of the next frame, or NULL at the end of the connection. Fails on an error frame of the
 * broker. */
const uint8_t *peer_receive(struct peer *peer, struct control_header *header);

/* Returns true if a frame has arrived, so that peer_receive() will not wait. */
bool peer_has_frame(const struct peer *peer);

/* The words of CONTROL_START. */
struct request {
	struct control_start head;
	const char *user, *path;
	char **arguments;	/* head.arguments of them */
	const char **variables; /* head.variables of them */
};

/* The descriptors of a session; -1: none. */
struct streams {
	int in, out[2];
	bool terminal; /* in and out[0] are a terminal, in raw mode */
	void (*started)(void *context, uint32_t value);
	void (*unread)(void *context); /* nobody reads out[0]; does not return. NULL: that is an error of nabla */
	void *context;
};

/* Runs a session to its end. Returns the value of CONTROL_EXIT; fails if the session cannot start. */
uint32_t session_run(struct peer *peer, const struct request *request, const struct streams *streams);

/* The commands: words up to NULL. Each returns the exit status. */
typedef int client_command(char **words);
client_command client_ps, client_exec, client_cp, client_stop, client_kill, client_pause, client_resume, client_stats,
	client_port, client_logs;

#endif
