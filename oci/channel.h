/* SPDX-License-Identifier: Apache-2.0 */
/* The control channel of a container's VM: nabla-run --name, whose socket is in the directory of the container's state. */
#ifndef NABLA_OCI_CHANNEL_H
#define NABLA_OCI_CHANNEL_H

#include "control_wire.h"
#include "state.h"

#include <stdbool.h>
#include <stddef.h>

#define CHANNEL_DIRECTORY "nabla" /* nabla-run's, in what it takes for XDG_RUNTIME_DIR */
#define CHANNEL_NAME "vm"

/*
 * Connects to the broker of a running container, which may have been started only now. Returns -1 if there is none, with the
 * reason in *why.
 */
int channel_open(const struct state *state, const char **why);

/* Sends the request that begins a session: words of guest/protocol.h. Returns false if the broker is gone, or they are too long. */
bool channel_start(int fd, const struct control_start *head, const char *words, size_t length);

/* Asks the guest's first program one of CONTROL_QUESTION. Returns what it answers with its length; NULL with the reason in *why. */
char *channel_ask(const struct state *state, const char *words, size_t length, size_t *answer, const char **why);

/* Why the broker refused: enum control_error. */
const char *channel_error(unsigned code);

#endif
