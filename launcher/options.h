/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for. */
#ifndef NABLA_OPTIONS_H
#define NABLA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
	uint64_t memory; /* bytes, whole pages */
	bool read_only;
	bool ephemeral;
	bool verbose;
	bool dry_run;
	const char *workdir;
	const char *hostname;
	const char *kernel; /* NULL: look for it */
	const char *append; /* further kernel parameters, separated by blanks; NULL: none */
	const char **env;   /* K=V */
	size_t env_count;
	const char *image;
	char **command; /* ends with NULL; empty: an interactive shell */
};

/* Reads the command line. Ends the program after --help and --version, and with a message when something is wrong. */
void options_parse(struct options *options, char **argv);

#endif
