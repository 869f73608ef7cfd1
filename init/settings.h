/* SPDX-License-Identifier: Apache-2.0 */
/* What the launcher wants of this boot. The kernel passes it on, unread, in /proc/nabla/settings. */
#ifndef NABLA_SETTINGS_H
#define NABLA_SETTINGS_H

#include <stdbool.h>

struct settings {
	char **command; /* ends with NULL; NULL itself: an interactive shell */
	char **env;     /* the whole environment of the command, ends with NULL */
	const char *workdir;
	const char *hostname; /* NULL: leave it */
	char *user;           /* as whom the command runs; NULL: root */
	char *address;        /* of eth0, A.B.C.D/N; NULL: none, as for the next two */
	char *gateway;
	char *mtu;
	char **servers;  /* name servers, ends with NULL */
	char **services; /* names of services to start besides the image's own, ends with NULL */
	bool terminal;   /* the console is a terminal with a person at it, not a stream of bytes */
};

/*
 * Reads the settings; /proc must be mounted. Where there are none, the kernel was started by hand: the words behind --
 * on its command line, which it hands to us as arguments, are the command then.
 */
void settings_read(struct settings *settings, char **argv);

/* Puts NAME=VALUE into the environment unless somebody has set that variable. */
void settings_default(struct settings *settings, char *variable);

#endif
