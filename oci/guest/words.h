/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration from nabla-oci, see protocol.h. */
#ifndef NABLA_OCI_GUEST_WORDS_H
#define NABLA_OCI_GUEST_WORDS_H

#include <stddef.h>

struct words {
	char *text; /* words with a NUL after each */
	size_t length;
};

/* Returns an error number, or 0. */
int words_read(struct words *words, int directory, const char *name);

/* Returns the value of a word NAME=VALUE, or NULL if it has another name. */
char *value_of(char *word, const char *name);

/* Returns the value of the first word with that name, or NULL. */
char *words_find(const struct words *words, const char *name);

/* Returns all values with that name, NULL-terminated; NULL if there is no memory. */
char **words_list(const struct words *words, const char *name);

/* Writes a number in decimal: without stdio, which would make the program larger. */
void number_text(char *text, unsigned long long number);

#endif
