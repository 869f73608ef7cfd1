/* SPDX-License-Identifier: Apache-2.0 */
/* The list of all options: what is parsed, what --help prints and what --manual prints come from it. */
#ifndef NABLA_TABLE_H
#define NABLA_TABLE_H

#include "options.h"

struct row {
	const char *name;
	const char *value; /* what the value is called in the help text; NULL: a switch */
	const char *help;  /* in one line */
	const char *details;  /* what the manual says besides, in Markdown; NULL: nothing */
	const char *default_text; /* what holds without the option; NULL: nothing worth a word */
	const char *example;
	void (*parse)(struct options *, const char *value);
};

/* A group has a name and no take(); the list ends with a row without a name. */
extern const struct row option_table[];

/* Print them; the manual is docs/nabla-run.md. */
void print_help(void);
void print_manual(void);

#endif
