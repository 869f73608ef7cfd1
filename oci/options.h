/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the command line. */
#ifndef NABLA_OCI_OPTIONS_H
#define NABLA_OCI_OPTIONS_H

#include <stdbool.h>

/*
 * Takes the option --NAME, or `letter` if it is not NULL, with its value at *at. Returns false if that is another word. Advances
 * over a value in the next word; fails if there is none.
 */
bool option_take(char ***at, const char *name, const char *letter, const char **value);

#endif
