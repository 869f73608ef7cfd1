/* SPDX-License-Identifier: Apache-2.0 */
/* One function for each option that has a value: checks it and keeps it, or fails with one line. */
#ifndef NABLA_TAKE_H
#define NABLA_TAKE_H

#include "options.h"

#define TAKE(name) void take_##name(struct options *o, const char *value)

TAKE(memory);
TAKE(disk);
TAKE(kernel);
TAKE(init);
TAKE(append);
TAKE(net);
TAKE(publish);
TAKE(dns);
TAKE(ip);
TAKE(env);
TAKE(service);
TAKE(workdir);
TAKE(hostname);
TAKE(user);
TAKE(run_as);
TAKE(timeout);
TAKE(stats_fd);

/* A decimal number up to most, nothing in front of it; *end is what follows. False: there is none, or it is more. */
bool take_number(const char *text, uint64_t most, uint64_t *number, const char **end);

/* Returns the list with room for one more element, and counts that one; the list may be NULL. */
void *one_more(void *list, size_t *count, size_t size);

#endif
