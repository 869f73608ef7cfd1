/* SPDX-License-Identifier: Apache-2.0 */
/* The sessions of the agent, apart from frames to the host. */
#ifndef NABLA_AGENT_START_H
#define NABLA_AGENT_START_H

#include "control_wire.h"
#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct session {
	bool used;
	bool ended;  /* what the session is for: `status` is known */
	bool file;   /* no process */
	pid_t pid;
	int status;  /* of wait(2); for a file, an error number */
	int in, out[2]; /* our ends; -1: closed */
	bool ready[2];	/* out may have something */
	bool closed[2]; /* the host knows that out is closed */
	size_t left[2];	/* once a program has ended: what out may still have of it, at most */
	uint32_t credit[2];
	uint8_t *input; /* what the host sent and the program has not taken yet: [start, end) of CONTROL_IN_WINDOW bytes */
	size_t start, end;
	bool input_closed;
	uint32_t consumed; /* to be credited */
};

/*
 * Starts what a frame asks for. Returns 0, and what the answer contains in *value; or an error number, with *stage. The
 * content is changed.
 */
int session_start(struct session *session, const struct settings *base, uint8_t *content, size_t length, uint32_t *value,
		  uint32_t *stage);

/* Takes input from the host, for the program or file. */
void session_take_input(struct session *session, const uint8_t *content, size_t length);

/* Writes what can be written of it. */
void session_pass_input(struct session *session);

/* The program has ended with this wait status. */
void session_ended(struct session *session, int status);

/* Closes everything; the process goes on. */
void session_end(struct session *session);

#endif
