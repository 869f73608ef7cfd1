// SPDX-License-Identifier: Apache-2.0
// process: the command that runs in the guest.
#include "container.h"

#include "diag.h"
#include "rules.h"

#include <ctype.h>
#include <string.h>
#include <sys/resource.h>

#define GROUPS_LIMIT 65536
#define SIZE_LIMIT 32768

const char *const capability_sets[CAP_SETS] = {"bounding", "effective", "permitted", "inheritable", "ambient"};

/* In the order of their numbers. */
static const char *const capabilities[CAPABILITY_COUNT] = {
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
};

/* In the order of their numbers. */
static const char *const resources[] = {
	[RLIMIT_CPU] = "CPU", [RLIMIT_FSIZE] = "FSIZE", [RLIMIT_DATA] = "DATA", [RLIMIT_STACK] = "STACK",
	[RLIMIT_CORE] = "CORE", [RLIMIT_RSS] = "RSS", [RLIMIT_NPROC] = "NPROC", [RLIMIT_NOFILE] = "NOFILE",
	[RLIMIT_MEMLOCK] = "MEMLOCK", [RLIMIT_AS] = "AS", [RLIMIT_LOCKS] = "LOCKS",
	[RLIMIT_SIGPENDING] = "SIGPENDING", [RLIMIT_MSGQUEUE] = "MSGQUEUE", [RLIMIT_NICE] = "NICE",
	[RLIMIT_RTPRIO] = "RTPRIO", [RLIMIT_RTTIME] = "RTTIME",
};

static int find(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -1;
}

static void parse_capabilities(const struct at *process, struct process *p)
{
	struct at all;
	p->capabilities_given = at_member(process, "capabilities", json_type_object, &all);
	for (int set = 0; p->capabilities_given && set < CAP_SETS; set++) {
		const char **names = at_texts(&all, capability_sets[set], NULL);
		for (; *names; names++) {
			int number = strncmp(*names, "CAP_", 4) ? -1 : find(capabilities, CAPABILITY_COUNT, *names + 4);
			if (number < 0)
				warn("process.capabilities.%s: the guest's kernel has no capability %s", capability_sets[set], *names);
			else
				p->capabilities[set] |= UINT64_C(1) << number;
		}
	}
}

/* A limit is unsigned; engines also write -1 for no limit. */
static uint64_t parse_limit(const struct at *limit, const char *name)
{
	struct at at = at_required(limit, name, json_type_int);
	uint64_t value = json_object_get_uint64(at.value);
	return json_object_get_int64(at.value) == -1 ? RLIM_INFINITY : value;
}

static void parse_limits(const struct at *process, struct process *p)
{
	struct at all;
	if (!at_member(process, "rlimits", json_type_array, &all))
		return;
	p->limits = allocate(at_length(&all), sizeof *p->limits);
	for (size_t i = 0; i < at_length(&all); i++) {
		struct at limit = at_element(&all, i, json_type_object);
		struct at type = at_required(&limit, "type", json_type_string);
		const char *name = at_text(&type);
		int number = strncmp(name, "RLIMIT_", 7) ? -1 : find(resources, sizeof resources / sizeof *resources, name + 7);
		if (number < 0)
			at_fail(&type, NULL, "there is no limit %s", name);
		struct limit parsed = {number, parse_limit(&limit, "soft"), parse_limit(&limit, "hard")};
		if (parsed.soft > parsed.hard)
			at_fail(&limit, NULL, "the soft limit is above the hard one");
		for (size_t j = 0; j < p->limit_count; j++)
			if (p->limits[j].resource == number)
				at_fail(&type, "each limit may appear once", "%s appears twice", name);
		p->limits[p->limit_count++] = parsed;
	}
}

static uint32_t parse_id(const struct at *at)
{
	return (uint32_t)at_integer(at, 0, UINT32_MAX - 1);
}

static void parse_user(const struct at *process, struct process *p)
{
	struct at user, at;
	p->umask = -1;
	if (!at_member(process, "user", json_type_object, &user))
		return;
	if (at_member(&user, "uid", json_type_int, &at))
		p->uid = parse_id(&at);
	if (at_member(&user, "gid", json_type_int, &at))
		p->gid = parse_id(&at);
	if (at_member(&user, "umask", json_type_int, &at))
		p->umask = (int)at_integer(&at, 0, 0777);
	if (!at_member(&user, "additionalGids", json_type_array, &at))
		return;
	if (at_length(&at) > GROUPS_LIMIT)
		at_fail(&at, NULL, "has more than %d groups", GROUPS_LIMIT);
	p->groups = allocate(at_length(&at), sizeof *p->groups);
	for (size_t i = 0; i < at_length(&at); i++) {
		struct at group = at_element(&at, i, json_type_int);
		p->groups[p->group_count++] = parse_id(&group);
	}
}

static void check_env(const struct at *process, const char **env)
{
	for (size_t i = 0; env[i]; i++) {
		const char *equals = strchr(env[i], '=');
		if (!equals || equals == env[i])
			at_fail(process, "write NAME=VALUE", "env[%zu] is not a variable", i);
	}
}

void parse_process(const struct at *config, struct process *p)
{
	struct at process, at;
	size_t count;
	p->umask = -1;
	p->present = at_member(config, "process", json_type_object, &process);
	if (!p->present)
		return;
	refuse_properties(&process, "process.");
	p->args = at_texts(&process, "args", &count);
	if (!count)
		at_fail(&process, NULL, "args names no program");
	p->env = at_texts(&process, "env", NULL);
	check_env(&process, p->env);
	at = at_required(&process, "cwd", json_type_string);
	p->cwd = at_text(&at);
	if (*p->cwd != '/')
		at_fail(&at, NULL, "'%s' is not an absolute path", p->cwd);
	p->terminal = at_true(&process, "terminal");
	if (p->terminal && at_member(&process, "consoleSize", json_type_object, &at)) {
		struct at height = at_required(&at, "height", json_type_int), width = at_required(&at, "width", json_type_int);
		p->rows = (unsigned short)at_integer(&height, 0, SIZE_LIMIT);
		p->columns = (unsigned short)at_integer(&width, 0, SIZE_LIMIT);
	}
	p->no_new_privileges = at_true(&process, "noNewPrivileges");
	p->oom_given = at_member(&process, "oomScoreAdj", json_type_int, &at);
	if (p->oom_given)
		p->oom = (int)at_integer(&at, -1000, 1000);
	parse_user(&process, p);
	parse_capabilities(&process, p);
	parse_limits(&process, p);
}
