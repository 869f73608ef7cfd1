/* SPDX-License-Identifier: Apache-2.0 */
/* The option table, from which the parser, --help and --manual are derived. */
#ifndef NABLA_TABLE_H
#define NABLA_TABLE_H

#include "options.h"

struct row {
	const char *name;
	const char *value; /* the value's name in the help text; NULL: a switch */
	const char *help;  /* one line */
	const char *details;  /* further text for the manual, in Markdown; NULL: none */
	const char *default_text; /* the default as text; NULL: none */
	const char *example;
	void (*parse)(struct options *, const char *value);
};

/* A group heading has a name and no parse(); the table ends with a row without a name. */
extern const struct row option_table[];

/* Print the table; docs/nabla-run.md is the output of print_manual(). */
void print_help(void);
void print_manual(void);

#endif
