/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a session with the agent in a container's guest. The guest is hostile, and the broker between may be: from
 * both come bytes for the output, and numbers.
 */
#ifndef NABLA_OCI_SESSION_H
#define NABLA_OCI_SESSION_H

#include "control_wire.h"

#include <stdbool.h>
#include <stddef.h>

struct session {
	int fd;	     /* to the broker */
	int in;	     /* -1: at its end */
	int out[2];  /* -1: nobody wants it */
	int signals; /* a signalfd of what is passed on; -1: none */
	int terminal; /* whose size the guest's follows; -1: none */
	uint64_t deadline; /* in ms of CLOCK_MONOTONIC, for the end; 0: none */
	/* the rest starts with zeros */
	bool started;
	uint32_t spent;	   /* of the credit for the input */
	uint32_t granted;
	uint32_t taken[2]; /* to be credited */
	size_t have, used;
	uint8_t bytes[CONTROL_FRAME_MAX];
};

enum session_event {
	SESSION_STARTED,
	SESSION_FAILED,	 /* numbers: stage, error */
	SESSION_REFUSED, /* numbers: enum control_error */
	SESSION_EXITED,	 /* numbers: wait status */
	SESSION_LOST,	 /* the broker is gone, or does not follow the protocol */
	SESSION_UNHEARD, /* nobody reads the output any more */
	SESSION_LATE,	 /* the deadline is over */
};

/* CLOCK_MONOTONIC in ms. */
uint64_t session_now(void);

/* Passes on what comes until something happens that the caller has to know. All but the first event are the last. */
enum session_event session_next(struct session *session, uint32_t numbers[2]);

#endif
