/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of containers: a directory ROOT/ID for each, which only its owner can enter.
 *
 *   state.json   the results of create; complete once the container is created
 *   start        a FIFO for which the container's process waits; start removes it
 *   guest/       files for the guest: its first program, the program's configuration, the signal of a kill
 *   nabla/vm     the socket by which nabla-run passes on what nabla-oci wants of that program, see channel.h
 */
#ifndef NABLA_OCI_STATE_H
#define NABLA_OCI_STATE_H

#include "container.h"
#include "guest/protocol.h"

#include <json_object.h>
#include <sys/types.h>

#define STATE_FIFO "start"
#define STATE_GUEST "guest"

#define SPECIFICATION "1.2.0" /* of OCI, the newest version that nabla-oci knows */

enum status { CREATING, CREATED, RUNNING, STOPPED, PAUSED };
extern const char *const status_names[];

/* Opens the directory of all states, and creates it if it is missing. root: --root; NULL: the default. */
void state_open_root(const char *root, const char *own_id);

/* Creates the directory of a new container; fails if the ID is invalid or in use. Returns a descriptor. */
int state_create(const char *id);

/* Removes the directory of a container and its contents. */
void state_remove(const char *id);

/* Path of a file in the directory of a container. */
char *state_path(const char *id, const char *name);

struct state {
	const char *id;
	int directory;
	struct json_object *document;
	const char *bundle, *cgroup; /* cgroup NULL: none of its own */
	pid_t pid;
	int pidfd; /* -1: it has ended */
	enum status status;
};

/* Reads the state of a container. If there is none, fails, or returns false if missing_ok. */
bool state_load(const char *id, struct state *state, bool missing_ok);

/* Writes state.json. pid 0: none yet. */
struct json_object *state_document(const struct container *c, const char *id, const char *bundle, pid_t pid,
				   const char *cgroup);
void state_write(int directory, struct json_object *document);

/* The state in the form of the specification, for `state` and hooks. */
char *state_text(struct json_object *document, enum status status, bool pretty);

/* Names of all containers, sorted, NULL-terminated. */
char **state_list(void);

/* Writes a file in a directory atomically. */
void write_file_at(int directory, const char *name, const void *content, size_t length, unsigned mode);

#endif
