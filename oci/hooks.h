/* SPDX-License-Identifier: Apache-2.0 */
/* Programs of the engine that run at certain points in a container's life cycle. */
#ifndef NABLA_OCI_HOOKS_H
#define NABLA_OCI_HOOKS_H

#include "json.h"

/* Fails if the hooks of a configuration are malformed, or cannot be run. */
void hooks_check(const struct at *config);

/*
 * Runs the hooks of one kind, with the state on standard input. hooks: the configuration's object, NULL if it has none.
 * If they are required, fails when a hook fails; otherwise warns and continues.
 */
void hooks_run(struct json_object *hooks, const char *kind, const char *state, bool required);

#endif
