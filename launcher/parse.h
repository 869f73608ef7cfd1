/* SPDX-License-Identifier: Apache-2.0 */
/* One function for each option that has a value: checks it and keeps it, or fails with one line. */
#ifndef NABLA_PARSE_H
#define NABLA_PARSE_H

#include "options.h"

#define PARSE(name) void parse_##name(struct options *o, const char *value)

PARSE(memory);
PARSE(disk);
PARSE(kernel);
PARSE(init);
PARSE(append);
PARSE(net);
PARSE(publish);
PARSE(dns);
PARSE(ip);
PARSE(env);
PARSE(service);
PARSE(workdir);
PARSE(hostname);
PARSE(user);
PARSE(run_as);
PARSE(timeout);
PARSE(stats_fd);

/* A decimal number up to most, nothing in front of it; *end is what follows. False: there is none, or it is more. */
bool parse_number(const char *text, uint64_t most, uint64_t *number, const char **end);

/* Returns the list with room for one more element, and counts that one; the list may be NULL. */
void *array_grow(void *list, size_t *count, size_t size);

#endif
