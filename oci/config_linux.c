// SPDX-License-Identifier: Apache-2.0
// linux: namespaces, devices, kernel parameters.
#include "container.h"

#include "diag.h"
#include "rules.h"

#include <stdlib.h>
#include <string.h>

static const struct namespace_rule *find_rule(const struct at *type)
{
	for (const struct namespace_rule *rule = namespace_rules; rule->type; rule++)
		if (!strcmp(rule->type, at_text(type)))
			return rule;
	at_fail(type, NULL, "there is no namespace '%s'", at_text(type));
}

static void check_network(const struct at *namespaces, const struct container *c, bool listed)
{
	if (!listed && !c->no_network_accepted)
		at_fail(namespaces, "use --network none, or set the annotation " ANNOTATION "network=none",
			"a VM cannot use the host's network; list a network namespace");
}

static void parse_namespaces(const struct at *linux_section, struct container *c)
{
	struct at all;
	bool seen[16] = {false};
	bool given = at_member(linux_section, "namespaces", json_type_array, &all);
	for (size_t i = 0; given && i < at_length(&all); i++) {
		struct at path, one = at_element(&all, i, json_type_object);
		struct at type = at_required(&one, "type", json_type_string);
		const struct namespace_rule *rule = find_rule(&type);
		size_t number = (size_t)(rule - namespace_rules);
		if (seen[number])
			at_fail(&type, "list it once", "a second namespace '%s'", rule->type);
		seen[number] = true;
		bool joins = at_member(&one, "path", json_type_string, &path) && *at_text(&path);
		if (joins && *at_text(&path) != '/')
			at_fail(&path, NULL, "'%s' is not an absolute path", at_text(&path));
		const char *reason = joins ? rule->joined : rule->created;
		if (reason)
			at_fail(&one, rule->hint, "namespace %s: %s", rule->type, reason);
		if (!strcmp(rule->type, "network")) {
			c->network_path = joins ? at_text(&path) : NULL;
			c->network_new = !joins;
		}
	}
	for (size_t i = 0; namespace_rules[i].type; i++) {
		const struct namespace_rule *rule = &namespace_rules[i];
		if (!seen[i] && rule->absent)
			at_fail(&all, rule->hint, "without a namespace %s: %s", rule->type, rule->absent);
		if (!strcmp(rule->type, "network"))
			check_network(&all, c, seen[i]);
	}
}

static void parse_sysctls(const struct at *linux_section, struct container *c)
{
	struct at all;
	if (!at_member(linux_section, "sysctl", json_type_object, &all))
		return;
	c->sysctls = allocate((size_t)json_object_object_length(all.value), sizeof *c->sysctls);
	json_object_object_foreach(all.value, key, value) {
		struct at one = {&all, key, 0, value};
		if (!json_object_is_type(value, json_type_string))
			at_fail(&one, NULL, "must be of type string");
		if (!*key || *key == '.' || strchr(key, '/') || strstr(key, ".."))
			at_fail(&one, NULL, "is not the name of a kernel parameter");
		c->sysctls[c->sysctl_count++] = (struct setting){key, at_text(&one)};
	}
}

static void check_devices(const struct at *linux_section)
{
	struct at all;
	if (!at_member(linux_section, "devices", json_type_array, &all))
		return;
	for (size_t i = 0; i < at_length(&all); i++) {
		struct at one = at_element(&all, i, json_type_object);
		struct at path = at_required(&one, "path", json_type_string);
		if (!device_is_standard(tidy_path(&path)))
			at_fail(&path, "use a container without --device", "the VM cannot have the host's device %s", at_text(&path));
	}
}

/* Those below /proc and /sys are the guest's own: they show and change nothing of the host. */
static const char **parse_paths(const struct at *linux_section, const char *name)
{
	struct at all;
	size_t length = at_member(linux_section, name, json_type_array, &all) ? at_length(&all) : 0, count = 0;
	const char **paths = allocate(length + 1, sizeof *paths);
	for (size_t i = 0; i < length; i++) {
		struct at one = at_element(&all, i, json_type_string);
		const char *path = tidy_path(&one);
		if (!guest_directory(path))
			paths[count++] = path;
	}
	return paths;
}

static void check_rest(const struct at *linux_section)
{
	struct at at, domain, flags;
	if (at_member(linux_section, "rootfsPropagation", json_type_string, &at) && strstr(at_text(&at), "shared"))
		at_fail(&at, "use private or slave", "mounts of a VM reach nobody else");
	if (at_member(linux_section, "personality", json_type_object, &at)) {
		domain = at_required(&at, "domain", json_type_string);
		if (strcmp(at_text(&domain), "LINUX"))
			at_fail(&domain, "LINUX is the only one", "the guest's kernel has no personality %s", at_text(&domain));
		if (at_member(&at, "flags", json_type_array, &flags) && at_length(&flags))
			at_fail(&flags, NULL, "no flag is known");
	}
	if (at_member(linux_section, "seccomp", json_type_object, &at) && at_member(&at, "listenerPath", json_type_string, &domain) &&
	    *at_text(&domain))
		at_fail(&domain, "remove it", "no system call of the command reaches the host: there is nothing to listen to");
}

void parse_linux(const struct at *config, struct container *c)
{
	struct at linux_section;
	c->masked = c->read_only = allocate(1, sizeof *c->masked);
	if (!at_member(config, "linux", json_type_object, &linux_section)) {
		/* without namespaces everything would be the host's */
		linux_section.value = json_object_new_object();
		json_object_object_add(config->value, "linux", linux_section.value);
	}
	refuse_properties(&linux_section, "linux.");
	parse_namespaces(&linux_section, c);
	parse_sysctls(&linux_section, c);
	check_devices(&linux_section);
	c->masked = parse_paths(&linux_section, "maskedPaths");
	c->read_only = parse_paths(&linux_section, "readonlyPaths");
	check_rest(&linux_section);
	parse_resources(&linux_section, c);
}
