// SPDX-License-Identifier: Apache-2.0
// The parts of config.json that are the same on all platforms.
#include "container.h"

#include "diag.h"
#include "hooks.h"
#include "rules.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define HOSTNAME_MAX 64

const char *tidy_path(const struct at *at)
{
	const char *word = at_text(at);
	char *path = allocate(strlen(word) + 2, 1), *to = path;
	if (*word != '/')
		at_fail(at, NULL, "%s is not an absolute path", word);
	while (*(word += strspn(word, "/"))) {
		size_t length = strcspn(word, "/");
		if (word[0] == '.' && (length == 1 || (length == 2 && word[1] == '.')))
			at_fail(at, "write the path without them", "%s has . or .. in it", at_text(at));
		*to++ = '/';
		memcpy(to, word, length);
		to += length;
		word += length;
	}
	if (to == path)
		*path = '/';
	return path;
}

bool path_is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	if (length == 1)
		return true;
	return !strncmp(path, directory, length) && (!path[length] || path[length] == '/');
}

/* SemVer 2.0.0: three numbers without leading zeros, then perhaps -WORDS and +WORDS. */
static void check_version(const struct at *at, const char *version)
{
	const char *text = version;
	for (int i = 0; i < 3; i++) {
		size_t digits = strspn(text, "0123456789");
		bool good = digits && !(digits > 1 && *text == '0');
		text += digits;
		if (!good || (i < 2 && *text++ != '.'))
			at_fail(at, NULL, "'%s' is not a version of the form 1.2.3", version);
	}
	for (const char *start = "-+"; *start; start++) {
		if (*text != *start)
			continue;
		do {
			size_t length = 0;
			for (text++; isalnum((unsigned char)*text) || *text == '-'; text++)
				length++;
			if (!length)
				at_fail(at, NULL, "'%s' is not a version of the form 1.2.3-word+word", version);
		} while (*text == '.');
	}
	if (*text)
		at_fail(at, NULL, "'%s' is not a version of the form 1.2.3", version);
	if (strncmp(version, "1.", 2))
		at_fail(at, "nabla-oci knows the versions 1.x of the specification", "'%s' is another major version", version);
}

static void parse_root(const struct at *config, struct container *c)
{
	struct at root = at_required(config, "root", json_type_object);
	struct at path = at_required(&root, "path", json_type_string);
	c->root = at_text(&path);
	if (!*c->root)
		at_fail(&path, NULL, "is empty");
	c->root_read_only = at_true(&root, "readonly");
}

static const char *parse_name(const struct at *config, const char *name)
{
	struct at at;
	if (!at_member(config, name, json_type_string, &at))
		return NULL;
	const char *text = at_text(&at);
	if (!*text)
		return NULL;
	if (strlen(text) > HOSTNAME_MAX)
		at_fail(&at, NULL, "has more than %d characters", HOSTNAME_MAX);
	for (const char *letter = text; *letter; letter++)
		if (!isalnum((unsigned char)*letter) && !strchr("-._", *letter))
			at_fail(&at, NULL, "'%s' contains characters other than letters, digits, dots, hyphens and underscores", text);
	return text;
}

/* A size with K, M or G. */
static uint64_t parse_size(const struct at *at)
{
	char *end;
	const char *text = at_text(at);
	uint64_t size = isdigit((unsigned char)*text) ? strtoull(text, &end, 10) : (end = NULL, 0);
	unsigned shift = end && *end ? (*end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 99) : 0;
	if (!end || shift > 30 || (shift && end[1]) || size > UINT64_C(1) << 40 || size << shift < MEMORY_MIN)
		at_fail(at, "for example 512M; at least 24M", "'%s' is not a size of memory", text);
	return size << shift;
}

static void parse_annotations(const struct at *config, struct container *c)
{
	struct at all, at;
	if (!at_member(config, "annotations", json_type_object, &all))
		return;
	json_object_object_foreach(all.value, key, value) {
		struct at one = {&all, key, 0, value};
		if (!*key)
			at_fail(&all, NULL, "has an empty key");
		if (!json_object_is_type(value, json_type_string))
			at_fail(&one, NULL, "must be of type string");
	}
	if (at_member(&all, ANNOTATION "memory", json_type_string, &at))
		c->memory = parse_size(&at);
	if (at_member(&all, ANNOTATION "kernel", json_type_string, &at))
		c->kernel = at_text(&at);
	if (at_member(&all, ANNOTATION "network", json_type_string, &at)) {
		if (strcmp(at_text(&at), "none"))
			at_fail(&at, NULL, "'%s' is unknown; 'none' is the only value so far", at_text(&at));
		c->no_network_accepted = true;
	}
}

void container_parse(struct json_object *document, struct container *c)
{
	const struct at config = {.value = document};
	*c = (struct container){.document = document, .tasks = -1};
	if (!json_object_is_type(document, json_type_object))
		fail(NULL, "config.json is not an object");
	struct at version = at_required(&config, "ociVersion", json_type_string);
	c->version = at_text(&version);
	check_version(&version, c->version);
	refuse_properties(&config, "");
	parse_root(&config, c);
	c->hostname = parse_name(&config, "hostname");
	c->domainname = parse_name(&config, "domainname");
	parse_annotations(&config, c);
	parse_process(&config, &c->process);
	parse_mounts(&config, c);
	hooks_check(&config);
	parse_linux(&config, c);
	if (!c->memory)
		c->memory = MEMORY_DEFAULT;
}
