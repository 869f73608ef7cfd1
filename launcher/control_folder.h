/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of the sockets of named VMs: `nabla` in $XDG_RUNTIME_DIR or, without that, `machines` in nabla-run's cache
 * folder. Only the user can enter it, so nobody else reaches the sockets in it.
 */
#ifndef NABLA_CONTROL_FOLDER_H
#define NABLA_CONTROL_FOLDER_H

#include <stdbool.h>

#define CONTROL_NAME_MAX 64

/* Returns true for 1 to 64 letters, digits, '-', '.' and '_', of which the first is a letter or digit. */
bool control_name_is_valid(const char *name);

/* Opens the folder, and creates it if `create`. Returns -1 and *why on failure; *why is NULL if it does not exist. */
int control_folder(bool create, const char **why);

enum control_found {
	CONTROL_FOUND,
	CONTROL_FOUND_NONE,
	CONTROL_FOUND_STALE, /* a socket that nobody serves any longer */
	CONTROL_FOUND_ERROR, /* errno */
};

/* Connects to the VM of this name and stores the socket in *fd. Changes the working directory temporarily. */
enum control_found control_connect(int folder, const char *name, int *fd);

/* Creates the socket of this name, which must not exist, and listens. Returns -1 with errno set. */
int control_listen(int folder, const char *name);

/* Removes sockets without a server, under the lock that each start of a VM takes. */
void control_lock(int folder);
void control_unlock(int folder);

#endif
