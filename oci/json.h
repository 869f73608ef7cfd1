/* SPDX-License-Identifier: Apache-2.0 */
/* Values in a JSON document, each with its place, so that an error names the property. */
#ifndef NABLA_OCI_JSON_H
#define NABLA_OCI_JSON_H

#include <json_object.h>
#include <linkhash.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct at {
	const struct at *up; /* NULL: the document */
	const char *name;    /* of the member; NULL: an element */
	size_t index;	     /* of the element */
	struct json_object *value;
};

/* Reads and parses a file of at most 16 MB; fails otherwise. The root must be an object. what: for messages. */
struct json_object *json_read(int directory, const char *name, const char *what);

/* Parses text that need not end with a NUL. Returns NULL with the reason in *error, which is static. */
struct json_object *json_parse(const char *text, size_t length, const char **error);

/* Finds a member. Returns false if it is absent or null; fails if it has another type. */
bool at_member(const struct at *object, const char *name, enum json_type type, struct at *found);

/* The same, but fails if it is absent. */
struct at at_required(const struct at *object, const char *name, enum json_type type);

size_t at_length(const struct at *array);

/* Fails if the element has another type. */
struct at at_element(const struct at *array, size_t index, enum json_type type);

/* The text of a string; fails if it contains a NUL. */
const char *at_text(const struct at *string);

/* An integer between the limits; fails otherwise. */
int64_t at_integer(const struct at *number, int64_t least, int64_t most);

bool at_true(const struct at *object, const char *name);

/* Returns a new NULL-terminated list of the strings in an array, which the document owns; an empty list if it is
 * absent. */
const char **at_texts(const struct at *object, const char *name, size_t *count);

/* Reports an error about a value, with its place. */
_Noreturn void at_fail(const struct at *at, const char *hint, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Allocates memory that is never freed; fails if there is none. */
void *allocate(size_t count, size_t size);
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
