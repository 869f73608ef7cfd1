/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NABLA_BROKER_LOOP_H
#define NABLA_BROKER_LOOP_H

#include "broker.h"

#include <sys/types.h>

/* Descriptors of the broker. */
struct broker_files {
	int guest;    /* a stream socket; the agent is at its other end */
	int listener; /* not blocking, for clients */
	int launcher; /* a packet socket; the broker ends when it is closed */
	uid_t user;   /* only clients of this user and of root are served */
};

/* Serves until the launcher's end of its socket is closed. Returns false if it could not
 * continue. */
bool broker_loop(struct broker *broker, const struct broker_files *files);

#endif
