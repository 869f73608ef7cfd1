// SPDX-License-Identifier: Apache-2.0
// linux.cgroupsPath and linux.resources: limits of the VM's processes on the host.
#include "container.h"

#include "diag.h"

#include <inttypes.h>
#include <string.h>

#define SETTINGS_MAX 32
#define SHARES_MAX_V1 262144

static void add(struct container *c, const char *name, const char *value)
{
	if (c->cgroup_setting_count == SETTINGS_MAX)
		fail(NULL, "linux.resources has too many limits");
	c->cgroup_settings[c->cgroup_setting_count++] = (struct setting){name, value};
}

/* Docker writes all members of some objects, with zeros. */
static bool is_nothing(struct json_object *value)
{
	switch (json_object_get_type(value)) {
	case json_type_null:
		return true;
	case json_type_int:
		return json_object_get_int64(value) <= 0;
	case json_type_boolean:
		return !json_object_get_boolean(value);
	case json_type_array:
		return !json_object_array_length(value);
	case json_type_object:
		break;
	default:
		return !*json_object_get_string(value);
	}
	json_object_object_foreach(value, key, member) {
		(void)key;
		if (!is_nothing(member))
			return false;
	}
	return true;
}

/* Fails if the property is present and not empty. */
static void refuse(const struct at *object, const char *name)
{
	struct at at = {object, name, 0, NULL};
	if (json_object_object_get_ex(object->value, name, &at.value) && !is_nothing(at.value))
		at_fail(&at, "remove the limit", "the VM's process cannot be limited by it");
}

static bool amount(const struct at *object, const char *name, int64_t least, int64_t *value)
{
	struct at at;
	if (!at_member(object, name, json_type_int, &at))
		return false;
	*value = at_integer(&at, least, INT64_MAX);
	return true;
}

static void parse_memory(const struct at *resources, struct container *c)
{
	struct at memory;
	int64_t limit = -1, swap = -1, reservation;
	if (!at_member(resources, "memory", json_type_object, &memory))
		return;
	static const char *const unsupported[] = {"kernel", "kernelTCP", "swappiness", "disableOOMKiller"};
	for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
		refuse(&memory, unsupported[i]);
	if (amount(&memory, "limit", -1, &limit) && limit > 0) {
		struct at at = at_required(&memory, "limit", json_type_int);
		if ((uint64_t)limit < MEMORY_MIN + MEMORY_HOST)
			at_fail(&at, "at least 40 MiB: 24 for the guest, 16 for nabla-run and its file server",
				"%" PRId64 " bytes are too little for a VM", limit);
		uint64_t guest = (uint64_t)limit - MEMORY_HOST;
		if (c->memory > guest)
			at_fail(&at, "raise the limit, or lower the annotation " ANNOTATION "memory",
				"the VM's memory and 16 MiB do not fit into the limit");
		if (!c->memory)
			c->memory = guest;
		add(c, "memory.max", format_text("%" PRId64, limit));
	}
	if (amount(&memory, "swap", -1, &swap) && swap > 0) {
		struct at at = at_required(&memory, "swap", json_type_int);
		if (limit <= 0 || swap < limit)
			at_fail(&at, NULL, "is the sum of memory and swap, which is not less than the limit of memory");
		add(c, "memory.swap.max", format_text("%" PRId64, swap - limit));
	}
	if (amount(&memory, "reservation", -1, &reservation) && reservation > 0)
		add(c, "memory.low", format_text("%" PRId64, reservation));
}

static void parse_cpu(const struct at *resources, struct container *c)
{
	struct at cpu, at;
	int64_t shares, quota = -1, period = 100000;
	if (!at_member(resources, "cpu", json_type_object, &cpu))
		return;
	static const char *const unsupported[] = {"burst", "realtimePeriod", "realtimeRuntime", "idle"};
	for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
		refuse(&cpu, unsupported[i]);
	if (amount(&cpu, "shares", 0, &shares) && shares) {
		/* as runc converts version 1's 2 to 262144 into version 2's 1 to 10000 */
		shares = shares < 2 ? 2 : shares > SHARES_MAX_V1 ? SHARES_MAX_V1 : shares;
		add(c, "cpu.weight", format_text("%" PRId64, 1 + (shares - 2) * 9999 / 262142));
	}
	bool limited = amount(&cpu, "quota", -1, &quota) && quota > 0;
	bool timed = amount(&cpu, "period", 0, &period) && period > 0;
	if (limited)
		add(c, "cpu.max", format_text("%" PRId64 " %" PRId64, quota, timed ? period : 100000));
	else if (timed)
		add(c, "cpu.max", format_text("max %" PRId64, period));
	if (at_member(&cpu, "cpus", json_type_string, &at) && *at_text(&at))
		add(c, "cpuset.cpus", at_text(&at));
	if (at_member(&cpu, "mems", json_type_string, &at) && *at_text(&at))
		add(c, "cpuset.mems", at_text(&at));
}

static void parse_unified(const struct at *resources, struct container *c)
{
	struct at all;
	if (!at_member(resources, "unified", json_type_object, &all))
		return;
	json_object_object_foreach(all.value, key, value) {
		struct at one = {&all, key, 0, value};
		if (!json_object_is_type(value, json_type_string))
			at_fail(&one, NULL, "must be of type string");
		if (!strchr(key, '.') || *key == '.' || strchr(key, '/') || !strncmp(key, "cgroup.", 7))
			at_fail(&one, NULL, "is not a limit of a cgroup");
		add(c, key, at_text(&one));
	}
}

void parse_resources(const struct at *linux_section, struct container *c)
{
	struct at resources, pids, at;
	c->cgroup_settings = allocate(SETTINGS_MAX, sizeof *c->cgroup_settings);
	if (at_member(linux_section, "cgroupsPath", json_type_string, &at) && *at_text(&at)) {
		c->cgroup = at_text(&at);
		if (strstr(c->cgroup, ".."))
			at_fail(&at, NULL, "'%s' has .. in it", c->cgroup);
	}
	if (!at_member(linux_section, "resources", json_type_object, &resources))
		return;
	static const char *const unsupported[] = {"blockIO", "hugepageLimits", "network", "rdma"};
	for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
		refuse(&resources, unsupported[i]);
	parse_memory(&resources, c);
	parse_cpu(&resources, c);
	/* The guest's kernel counts them; on the host the VM is a handful of processes, whatever runs inside. */
	if (at_member(&resources, "pids", json_type_object, &pids) && amount(&pids, "limit", -1, &c->tasks) && c->tasks == 0)
		c->tasks = -1;
	parse_unified(&resources, c);
}
