/* SPDX-License-Identifier: Apache-2.0 */
/* The user that runs the command. Names are looked up in the guest's /etc/passwd and /etc/group. */
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
 * Looks up NAME, UID, NAME:GROUP or UID:GID (names and numbers can be mixed), and sets HOME, USER and LOGNAME in the
 * environment unless the settings contain them. A UID need not exist in /etc/passwd: its group is then the GID of the same
 * number. With an explicit group, the user is in no other group. Returns NULL, or the reason why there is no such user.
 */
const char *user_find(struct settings *settings, struct user *user);

/* Reports on the console why there is no such user. */
void user_report(const char *name, const char *reason);

/* Switches to the user and makes it the owner of the standard streams; for a vfork child. Returns false with errno set. */
bool user_become(const struct user *user);

#endif
