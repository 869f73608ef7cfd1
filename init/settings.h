/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher's settings for this boot. The kernel passes them on in /proc/nabla/settings. */
#ifndef NABLA_SETTINGS_H
#define NABLA_SETTINGS_H

#include <stdbool.h>

struct settings {
	char **command; /* NULL-terminated; NULL: an interactive shell */
	char **env;     /* the command's complete environment, NULL-terminated */
	const char *workdir;
	const char *hostname; /* NULL: keep the default */
	char *user;           /* runs the command; NULL: root */
	char *address;        /* of eth0, A.B.C.D/N; this and the next two: NULL if not set */
	char *gateway;
	char *mtu;
	char **servers;  /* name servers, NULL-terminated */
	char **hosts;    /* lines for /etc/hosts, ADDRESS NAME, NULL-terminated */
	char **mounts;   /* shared directories, NAME:ro|rw:CACHE:PATH, NULL-terminated */
	char **services; /* additional services to start, NULL-terminated */
	bool discard;    /* no disk keeps what this VM writes */
	bool control;    /* the host may ask for more programs, see agent.h */
	bool save;       /* save this VM before settings are applied, and read them again in each restored VM */
	bool terminal;   /* the console is an interactive terminal, not a byte stream */
};

/*
 * Reads the settings; /proc must be mounted. Without settings, the kernel was started by hand: the command is then the words
 * after -- on the kernel's command line, which init receives as its arguments.
 */
void settings_read(struct settings *settings, char **argv);

/* Sets an environment variable, NAME=VALUE, in a list with room for it, replacing one of the same name. */
void settings_variable(char **env, char *variable);

/* Sets an environment variable, NAME=VALUE. Returns false, without setting it, if the settings contain it. */
bool settings_default(struct settings *settings, char *variable);

#endif
