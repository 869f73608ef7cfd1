/* SPDX-License-Identifier: Apache-2.0 */
/* exec: one more program in a running container. */
#ifndef NABLA_OCI_EXEC_H
#define NABLA_OCI_EXEC_H

#include "container.h"
#include "state.h"

#include <stdbool.h>

struct exec_call {
	const char *id, *process_file, *pid_file, *console_socket, *cwd, *user, *preserved;
	bool detach, terminal, no_new_privileges;
	char **args; /* NULL-terminated */
	const char **env, **groups, **capabilities; /* NULL-terminated; NULL: none */
};

/* Parses the words after `exec`. Returns the ID, NULL if there is none. */
const char *exec_parse(struct exec_call *call, char **words);

/* What the call asks for: of --process, or of the container's own process with changes. */
void exec_process(const struct exec_call *call, const struct state *state, struct process *process);

/* Runs the program; without --detach, ends with its exit status. */
void container_exec(const struct exec_call *call);

#endif
