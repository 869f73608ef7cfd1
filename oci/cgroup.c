// SPDX-License-Identifier: Apache-2.0
#include "cgroup.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define TOP "/sys/fs/cgroup"
#define REMOVE_TURNS 200 /* of 10 ms: processes of a killed VM end soon */

static bool put(const char *directory, const char *name, const char *text)
{
	char *path = format_text("%s/%s", directory, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) >= 0;
	int error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return good;
}

/* The host's kernel refuses controllers that a parent has not enabled: the error appears when the limit is written. */
static void enable(const char *parent, const struct container *c)
{
	for (size_t i = 0; i < c->cgroup_setting_count; i++) {
		const char *name = c->cgroup_settings[i].name;
		put(parent, "cgroup.subtree_control", format_text("+%.*s", (int)strcspn(name, "."), name));
	}
}

static void make(char *path, const struct container *c)
{
	for (char *slash = path + sizeof TOP - 1; slash; slash = strchr(slash + 1, '/')) {
		char kept = *slash;
		*slash = '\0';
		if (slash != path + sizeof TOP - 1 && mkdir(path, 0755) < 0 && errno != EEXIST)
			fail("run without a cgroup: podman --cgroups disabled", "cannot create cgroup %s: %s", path, strerror(errno));
		enable(path, c);
		*slash = kept;
	}
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		fail("run without a cgroup: podman --cgroups disabled", "cannot create cgroup %s: %s", path, strerror(errno));
}

/*
 * The VM uses no more than the limit anyway, in the host's memory and swap together. Every container has the weight of 1024
 * shares, the default of engines, if the controller is missing.
 */
static bool holds_anyway(const struct setting *s)
{
	return !strcmp(s->name, "memory.max") || !strcmp(s->name, "memory.swap.max") ||
	       (!strcmp(s->name, "cpu.weight") && !strcmp(s->value, "39"));
}

static void check_no_limits(const struct container *c, const char *why)
{
	for (size_t i = 0; i < c->cgroup_setting_count; i++)
		if (!holds_anyway(&c->cgroup_settings[i]))
			fail("remove the limit", "linux.resources: %s cannot be set: %s", c->cgroup_settings[i].name, why);
}

const char *cgroup_create(const struct container *c, enum cgroup_manager manager)
{
	struct statfs fs;
	if (manager == CGROUP_DISABLED || !c->cgroup) {
		check_no_limits(c, c->cgroup ? "cgroups are disabled" : "the bundle names no cgroup");
		return NULL;
	}
	if (manager == CGROUP_SYSTEMD || (*c->cgroup != '/' && strchr(c->cgroup, ':')))
		fail("podman --cgroup-manager cgroupfs", "cgroups of systemd (%s) are not supported", c->cgroup);
	if (statfs(TOP, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		fail("run without a cgroup: podman --cgroups disabled", "linux.cgroupsPath needs cgroup version 2 at " TOP);
	char *path = format_text(TOP "/%s", c->cgroup + strspn(c->cgroup, "/"));
	make(path, c);
	for (size_t i = 0; i < c->cgroup_setting_count; i++) {
		const struct setting *s = &c->cgroup_settings[i];
		if (put(path, s->name, s->value))
			continue;
		int error = errno;
		if (error == ENOENT && holds_anyway(s))
			continue;
		cgroup_remove(path);
		fail(error == ENOENT ? "the host's cgroups lack the controller; remove the limit" : NULL,
		     "linux.resources: cannot set %s to %s: %s", s->name, s->value, strerror(error));
	}
	return path;
}

void cgroup_join(const char *path)
{
	if (!put(path, "cgroup.procs", "0"))
		fail(NULL, "cannot join cgroup %s: %s", path, strerror(errno));
}

void cgroup_remove(const char *path)
{
	for (int turn = 0; rmdir(path) < 0 && errno == EBUSY && turn < REMOVE_TURNS; turn++) {
		put(path, "cgroup.kill", "1");
		nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
}
