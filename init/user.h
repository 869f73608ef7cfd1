/* SPDX-License-Identifier: Apache-2.0 */
/* As whom the command runs. Names are those of the guest: /etc/passwd and /etc/group of the image. */
#ifndef NABLA_USER_H
#define NABLA_USER_H

#include "settings.h"

#include <stdbool.h>
#include <sys/types.h>

struct user {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary */
	size_t group_count;
};

/*
 * Finds out who is meant by NAME, UID, NAME:GROUP or UID:GID (names and numbers may be mixed), and puts HOME, USER and
 * LOGNAME into the settings' environment where nobody set them. A number need not be known: its group is then the one
 * with the same number. Who names a group is in no other. Returns false after it has told what is wrong.
 */
bool user_find(struct settings *settings, struct user *user);

/* Becomes that user, and gives it the standard streams; for a child from vfork. Returns false, with errno set. */
bool user_become(const struct user *user);

#endif
