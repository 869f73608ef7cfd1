/* SPDX-License-Identifier: Apache-2.0 */
/* One function per option that takes a value: checks and stores the value, or fails. */
#ifndef NABLA_PARSE_H
#define NABLA_PARSE_H

#include "options.h"

#define PARSE(name) void parse_##name(struct options *o, const char *value)

PARSE(memory);
PARSE(disk);
PARSE(mount);
PARSE(name);
PARSE(kernel);
PARSE(init);
PARSE(append);
PARSE(net);
PARSE(publish);
PARSE(dns);
PARSE(ip);
PARSE(allow);
PARSE(deny);
PARSE(env);
PARSE(service);
PARSE(workdir);
PARSE(hostname);
PARSE(user);
PARSE(run_as);
PARSE(timeout);
PARSE(cpu_time);
PARSE(nice);
PARSE(max_output);
PARSE(max_cow);
PARSE(stats_fd);
PARSE(snapshot);
PARSE(restore);

/* Sets the memory of a restored VM: the same as --memory, if given, and within the same bounds. */
void memory_restored(struct options *o, uint64_t size);

/* Parses a decimal number without sign or leading blanks. Stores its end in *end. Returns false above most. */
bool parse_number(const char *text, uint64_t most, uint64_t *number, const char **end);

/* Reallocates an array for one more element and increments *count. The array may be NULL. */
void *array_grow(void *list, size_t *count, size_t size);

#endif
