/* SPDX-License-Identifier: Apache-2.0 */
/* The sessions of the agent, without the frames to the host. */
#ifndef NABLA_AGENT_START_H
#define NABLA_AGENT_START_H

#include "control_wire.h"
#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct session {
	bool used;
	bool ended;  /* the program or transfer: `status` is known */
	bool file;   /* no process */
	pid_t pid;
	int status;  /* of wait(2); for a file, an error number */
	bool engine; /* CONTROL_ENGINE */
	int in, out[2]; /* our ends; -1: closed */
	bool ready[2];	/* out may have data */
	bool closed[2]; /* the host knows that out is closed */
	size_t left[2];	/* once a program has ended: the maximum of its output that is still in out */
	uint32_t credit[2];
	uint8_t *input; /* the host's data that the program has not read yet: [start, end) of CONTROL_IN_WINDOW bytes */
	size_t start, end;
	bool input_closed;
	uint32_t consumed; /* to be credited */
};

/*
 * Starts the program or transfer that a frame requests. Returns 0, with the content of the answer in *value; or an error
 * number, with *stage. Changes the content.
 */
int session_start(struct session *session, const struct settings *base, uint8_t *content, size_t length, uint32_t *value,
		  uint32_t *stage);

/*
 * Starts the program that the strings after `head` name, with these descriptors as standard streams. Returns 0 or an error
 * number, with *stage. The strings, of which the last ends with a NUL, are changed. agent_program.c, and oci/guest/program.c
 * for containers.
 */
int program_start(const struct control_start *head, char *strings, size_t length, const struct settings *base,
		  const int streams[3], pid_t *pid, uint32_t *stage);

/* Answers CONTROL_QUESTION: *out is to be read, -1: nothing. Returns 0 or an error number. Beside program_start(). */
int question_answer(char *strings, size_t length, int *out);

/* Accepts input from the host, for the program or file. */
void session_take_input(struct session *session, const uint8_t *content, size_t length);

/* Writes as much of it as possible. */
void session_pass_input(struct session *session);

/* The program has ended with this wait status. */
void session_ended(struct session *session, int status);

/* Closes everything; the process continues. */
void session_end(struct session *session);

#endif
