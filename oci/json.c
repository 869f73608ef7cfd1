// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <json_tokener.h>
#include <json_util.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MAX_OF_FILE (16 << 20)
#define DEPTH_MAX 64
#define PLACE_MAX 512

void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);
	if (!memory)
		fail(NULL, "out of memory");
	return memory;
}

char *format_text(const char *format, ...)
{
	char *text;
	va_list args;
	va_start(args, format);
	int length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0)
		fail(NULL, "out of memory");
	return text;
}

struct json_object *json_parse(const char *text, size_t length, const char **error)
{
	struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
	*error = "out of memory";
	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	struct json_object *document = json_tokener_parse_ex(tokener, text, (int)length);
	enum json_tokener_error reason = json_tokener_get_error(tokener);
	size_t end = json_tokener_get_parse_end(tokener);
	json_tokener_free(tokener);
	*error = reason == json_tokener_continue ? "it ends too early" : json_tokener_error_desc(reason);
	if (reason != json_tokener_success || !document) {
		json_object_put(document);
		return NULL;
	}
	while (end < length && strchr(" \t\r\n", text[end]) && text[end])
		end++;
	if (end == length)
		return document;
	*error = "something follows its end";
	json_object_put(document);
	return NULL;
}

struct json_object *json_read(int directory, const char *name, const char *what)
{
	struct stat st;
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(NULL, "cannot open %s: %s", what, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > SIZE_MAX_OF_FILE)
		fail(NULL, "%s is not a regular file of at most 16 MB", what);
	size_t length = 0, size = (size_t)st.st_size + 1;
	char *text = allocate(size, 1);
	for (ssize_t got = 1; got && length < size; length += (size_t)got) {
		got = read(fd, text + length, size - length);
		if (got < 0)
			fail(NULL, "cannot read %s: %s", what, strerror(errno));
	}
	close(fd);
	const char *error;
	struct json_object *document = json_parse(text, length, &error);
	free(text);
	if (!document)
		fail(NULL, "%s is not JSON: %s", what, error);
	if (!json_object_is_type(document, json_type_object))
		fail(NULL, "%s is not a JSON object", what);
	return document;
}

static void put_place(const struct at *at, char *place, size_t size)
{
	if (!at->up) {
		snprintf(place, size, "config.json");
		return;
	}
	put_place(at->up, place, size);
	size_t used = strlen(place);
	if (!at->name)
		snprintf(place + used, size - used, "[%zu]", at->index);
	else if (at->up->up)
		snprintf(place + used, size - used, ".%s", at->name);
	else
		snprintf(place, size, "%s", at->name);
}

void at_fail(const struct at *at, const char *hint, const char *format, ...)
{
	char place[PLACE_MAX], message[3000];
	va_list args;
	put_place(at, place, sizeof place);
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	fail(hint, "%s: %s", place, message);
}

static void check_type(const struct at *at, enum json_type type)
{
	if (!json_object_is_type(at->value, type))
		at_fail(at, NULL, "must be of type %s, and is of type %s", json_type_to_name(type),
			json_type_to_name(json_object_get_type(at->value)));
}

bool at_member(const struct at *object, const char *name, enum json_type type, struct at *found)
{
	*found = (struct at){.up = object, .name = name};
	if (!json_object_object_get_ex(object->value, name, &found->value) || !found->value)
		return false;
	check_type(found, type);
	return true;
}

struct at at_required(const struct at *object, const char *name, enum json_type type)
{
	struct at found;
	if (!at_member(object, name, type, &found))
		at_fail(&found, NULL, "is required");
	return found;
}

size_t at_length(const struct at *array)
{
	return json_object_array_length(array->value);
}

struct at at_element(const struct at *array, size_t index, enum json_type type)
{
	struct at found = {array, NULL, index, json_object_array_get_idx(array->value, index)};
	check_type(&found, type);
	return found;
}

const char *at_text(const struct at *string)
{
	const char *text = json_object_get_string(string->value);
	if (strlen(text) != (size_t)json_object_get_string_len(string->value))
		at_fail(string, NULL, "contains a NUL character");
	return text;
}

int64_t at_integer(const struct at *number, int64_t least, int64_t most)
{
	/* Larger numbers than INT64_MAX become INT64_MAX. */
	int64_t value = json_object_get_int64(number->value);
	if (value < least || value > most)
		at_fail(number, NULL, "%s is not between %lld and %lld", json_object_get_string(number->value),
			(long long)least, (long long)most);
	return value;
}

bool at_true(const struct at *object, const char *name)
{
	struct at found;
	return at_member(object, name, json_type_boolean, &found) && json_object_get_boolean(found.value);
}

const char **at_texts(const struct at *object, const char *name, size_t *count)
{
	struct at array;
	size_t length = at_member(object, name, json_type_array, &array) ? at_length(&array) : 0;
	const char **texts = allocate(length + 1, sizeof *texts);
	for (size_t i = 0; i < length; i++) {
		struct at element = at_element(&array, i, json_type_string);
		texts[i] = at_text(&element);
	}
	if (count)
		*count = length;
	return texts;
}
