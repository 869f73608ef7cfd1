/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_BROKER_LOOP_H
#define NABLA_BROKER_LOOP_H

#include "broker.h"

#include <sys/types.h>

/* Descriptors of the broker. */
struct broker_files {
	int guest;    /* a stream socket; the agent is at its other end */
	int listener; /* not blocking, for clients */
	int launcher; /* a socket of packets; its end ends the broker */
	uid_t user;   /* only its clients are served, and root's */
};

/* Serves until the launcher's end of its socket is closed. Returns false if it could not go on. */
bool broker_loop(struct broker *broker, const struct broker_files *files);

#endif
