// SPDX-License-Identifier: Apache-2.0
#include "exec.h"

#include "diag.h"
#include "options.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static void add(const char ***list, const char *text)
{
	size_t count = 0;
	while (*list && (*list)[count])
		count++;
	*list = realloc(*list, (count + 2) * sizeof **list);
	if (!*list)
		fail(NULL, "out of memory");
	(*list)[count] = text;
	(*list)[count + 1] = NULL;
}

static bool flag(const char *word, const char *name, const char *letter)
{
	return !strcmp(word, name) || (letter && !strcmp(word, letter));
}

/* Runc's options. Labels of security modules have no effect, as in config.json. */
static void parse_option(struct exec_call *call, char ***at)
{
	const char *value, *word = **at;
	if (flag(word, "--detach", "-d"))
		call->detach = true;
	else if (flag(word, "--tty", "-t"))
		call->terminal = true;
	else if (flag(word, "--no-new-privs", NULL))
		call->no_new_privileges = true;
	else if (option_take(at, "env", "-e", &value))
		add(&call->env, value);
	else if (option_take(at, "additional-gids", "-g", &value))
		add(&call->groups, value);
	else if (option_take(at, "cap", "-c", &value))
		add(&call->capabilities, value);
	else if (!option_take(at, "process", "-p", &call->process_file) && !option_take(at, "pid-file", NULL, &call->pid_file) &&
		 !option_take(at, "console-socket", NULL, &call->console_socket) && !option_take(at, "cwd", NULL, &call->cwd) &&
		 !option_take(at, "user", "-u", &call->user) && !option_take(at, "preserve-fds", NULL, &call->preserved) &&
		 !option_take(at, "process-label", NULL, &value) && !option_take(at, "apparmor", NULL, &value))
		fail("nabla-oci --help", "unknown option '%s'", word);
}

const char *exec_parse(struct exec_call *call, char **at)
{
	for (; *at && **at == '-' && (*at)[1]; at++) {
		if (!strcmp(*at, "--")) {
			at++;
			break;
		}
		parse_option(call, &at);
	}
	if (!*at)
		return NULL;
	call->id = *at++;
	if (*at && !strcmp(*at, "--"))
		at++;
	call->args = at;
	if (call->preserved && strcmp(call->preserved, "0"))
		fail("pass what it needs by standard input", "--preserve-fds: a VM has no descriptors of the host");
	if (call->console_socket && !call->detach)
		fail("add --detach", "--console-socket: without --detach, the terminal is that of the caller");
	if (call->process_file && *call->args)
		fail("name the program in one of both", "exec: --process and the command %s", *call->args);
	if (!call->process_file && !*call->args)
		fail("nabla-oci exec ID COMMAND…", "exec: the command is missing");
	return call->id;
}

/* --- a process like the container's own ------------------------------------------------------------------------------- */

static struct json_object *member(struct json_object *object, const char *name, enum json_type type)
{
	struct json_object *value = NULL;
	if (json_object_object_get_ex(object, name, &value) && json_object_is_type(value, type))
		return value;
	value = type == json_type_array ? json_object_new_array() : json_object_new_object();
	json_object_object_add(object, name, value);
	return value;
}

static uint32_t parse_id(const char *option, const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || value >= UINT32_MAX)
		fail("names are looked up by the engine", "%s: '%s' is not a number of a user or group", option, text);
	return (uint32_t)value;
}

static void set_id(struct json_object *user, const char *name, const char *option, const char *text)
{
	json_object_object_add(user, name, json_object_new_uint64(parse_id(option, text)));
}

static void set_user(const struct exec_call *call, struct json_object *process)
{
	struct json_object *user = member(process, "user", json_type_object);
	if (call->user) {
		const char *colon = strchr(call->user, ':');
		size_t length = colon ? (size_t)(colon - call->user) : strlen(call->user);
		set_id(user, "uid", "--user", format_text("%.*s", (int)length, call->user));
		if (colon)
			set_id(user, "gid", "--user", colon + 1);
	}
	for (const char **group = call->groups; group && *group; group++)
		json_object_array_add(member(user, "additionalGids", json_type_array),
				      json_object_new_uint64(parse_id("--additional-gids", *group)));
}

static void add_capabilities(const struct exec_call *call, struct json_object *process)
{
	static const char *const sets[] = {"bounding", "effective", "permitted"};
	struct json_object *present;
	/* without the member, the program has them all */
	if (!call->capabilities || !json_object_object_get_ex(process, "capabilities", &present))
		return;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		for (const char **name = call->capabilities; *name; name++)
			json_object_array_add(member(member(process, "capabilities", json_type_object), sets[i], json_type_array),
					      json_object_new_string(*name));
}

static struct json_object *like_own(const struct exec_call *call, const struct state *state)
{
	struct json_object *own = NULL, *process = NULL;
	if (!json_object_object_get_ex(state->document, "process", &own) || json_object_deep_copy(own, &process, NULL) < 0)
		fail(NULL, "the state of container %s has no process", call->id);
	struct json_object *args = json_object_new_array();
	for (char **word = call->args; *word; word++)
		json_object_array_add(args, json_object_new_string(*word));
	json_object_object_add(process, "args", args);
	json_object_object_add(process, "terminal", json_object_new_boolean(call->terminal));
	json_object_object_del(process, "consoleSize");
	if (call->cwd)
		json_object_object_add(process, "cwd", json_object_new_string(call->cwd));
	if (call->no_new_privileges)
		json_object_object_add(process, "noNewPrivileges", json_object_new_boolean(true));
	for (const char **variable = call->env; variable && *variable; variable++)
		json_object_array_add(member(process, "env", json_type_array), json_object_new_string(*variable));
	set_user(call, process);
	add_capabilities(call, process);
	return process;
}

void exec_process(const struct exec_call *call, const struct state *state, struct process *process)
{
	struct json_object *document = json_object_new_object();
	json_object_object_add(document, "process",
			       call->process_file ? json_read(AT_FDCWD, call->process_file, format_text("--process %s", call->process_file))
						  : like_own(call, state));
	const struct at config = {.value = document};
	*process = (struct process){.umask = -1};
	parse_process(&config, process);
}
