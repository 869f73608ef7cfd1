// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include "diag.h"

#include <stddef.h>
#include <string.h>

/* Returns the value of option NAME at *at, or NULL if that is another word. Advances over a value in the next word. */
static const char *value_of(char ***at, const char *name, const char *letter)
{
	char *word = **at;
	size_t length = strlen(name);
	bool whole = (!strncmp(word, "--", 2) && !strcmp(word + 2, name)) || (letter && !strcmp(word, letter));
	if (!whole)
		return !strncmp(word, "--", 2) && !strncmp(word + 2, name, length) && word[2 + length] == '=' ? word + 3 + length
													    : NULL;
	if (!(*at)[1])
		fail("nabla-oci --help", "--%s needs a value", name);
	return *++*at;
}

bool option_take(char ***at, const char *name, const char *letter, const char **value)
{
	const char *found = value_of(at, name, letter);
	if (found)
		*value = found;
	return found;
}
