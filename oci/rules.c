// SPDX-License-Identifier: Apache-2.0
#include "rules.h"

#include "container.h"

#include <stdio.h>
#include <string.h>

#define OTHERS "the container is a separate VM"

static const struct {
	const char *where, *name, *reason, *hint;
} refused[] = {
	{"", "vm", "the bundle describes another hypervisor's VM", "use the annotations " ANNOTATION "*"},
	{"process.", "scheduler", "the guest has one processor and no choice of scheduling policies", "remove it"},
	{"process.", "ioPriority", "the guest has no I/O priorities", "remove it"},
	{"process.", "execCPUAffinity", "the guest has one processor", "remove it"},
	{"linux.", "uidMappings", "files of a VM belong to one user of the host", "use a container without --userns"},
	{"linux.", "gidMappings", "files of a VM belong to one user of the host", "use a container without --userns"},
	{"linux.", "intelRdt", "cache allocation is not supported", "remove it"},
	{"linux.", "timeOffsets", "the guest has the host's clocks", "remove it"},
	{"linux.", "netDevices", "interfaces of the host cannot be moved into a VM", "remove it"},
	{"linux.", "memoryPolicy", "the guest has one memory node", "remove it"},
};

const struct namespace_rule namespace_rules[] = {
	{"pid", OTHERS " and cannot share processes", NULL, OTHERS " and cannot see the host's processes",
	 "use a container without --pid"},
	{"ipc", OTHERS " and cannot share memory", NULL, OTHERS " and cannot share the host's memory",
	 "use a container without --ipc"},
	{"uts", OTHERS " and cannot share a host name", NULL, OTHERS " and cannot share the host's name",
	 "use a container without --uts"},
	{"mount", OTHERS " with its own mounts", NULL, OTHERS " with its own mounts", "list a mount namespace"},
	{"user", "files of a VM belong to one user of the host", "files of a VM belong to one user of the host", NULL, NULL},
	{"time", "the guest has the host's clocks", "the guest has the host's clocks", NULL, NULL},
	{"cgroup", OTHERS " without cgroups inside", NULL, NULL, NULL},
	{"network", NULL, NULL, NULL, NULL}, /* parse_namespaces() decides */
	{NULL, NULL, NULL, NULL, NULL},
};

const struct guest_mount guest_mounts[] = {
	{"proc", "/proc", "procfs of the guest's kernel"},
	{"sysfs", "/sys", "sysfs of the guest's kernel"},
	{"tmpfs", "/dev", "devtmpfs of the guest's kernel, with the standard devices"},
	{"devtmpfs", "/dev", "devtmpfs of the guest's kernel, with the standard devices"},
	{"devpts", "/dev/pts", "devpts of the guest's kernel"},
	{"mqueue", "/dev/mqueue", "message queues of the guest's kernel, if it has them"},
	{"tmpfs", "/dev/shm", "memory of the guest, a quarter of it at most"},
	{"bind", "/dev/shm", "the guest's own; memory cannot be shared with other containers"},
	{"cgroup", NULL, "the limits are those of the VM's process on the host; the guest has no cgroups"},
	{"cgroup2", NULL, "the limits are those of the VM's process on the host; the guest has no cgroups"},
	{NULL, NULL, NULL},
};

const struct meaningless meaningless[] = {
	{"linux.seccomp", "system calls of the command reach the guest's kernel, never the host's, where the VM's own filter holds"},
	{"process.apparmorProfile", "the command is not a process of the host"},
	{"process.selinuxLabel", "the command is not a process of the host"},
	{"linux.mountLabel", "the guest sees no labels of the host"},
	{"linux.maskedPaths below /proc and /sys", "they are the guest's own and show nothing of the host"},
	{"linux.readonlyPaths below /proc and /sys", "they are the guest's own and change nothing on the host"},
	{"linux.resources.devices", "no device of the host can be opened"},
	{"mount options for access times and propagation", "the file server has no access times of its own, and the guest's mounts reach nobody"},
	{"linux.rootfsPropagation", "mounts of the guest reach nobody else; shared is refused"},
	{"standard linux.devices", "devtmpfs of the guest's kernel has them"},
	{"solaris, windows, zos, freebsd", "sections of other platforms"},
	{NULL, NULL},
};

void refuse_properties(const struct at *object, const char *where)
{
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct at at = {.up = object, .name = refused[i].name};
		if (strcmp(refused[i].where, where) || !json_object_object_get_ex(object->value, refused[i].name, &at.value) ||
		    !at.value)
			continue;
		/* empty ones have no effect */
		if (json_object_is_type(at.value, json_type_array) && !json_object_array_length(at.value))
			continue;
		if (json_object_is_type(at.value, json_type_object) && !json_object_object_length(at.value))
			continue;
		at_fail(&at, refused[i].hint, "%s", refused[i].reason);
	}
}

void refused_print(void)
{
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		printf("| %s%s | refused | %s |\n", refused[i].where, refused[i].name, refused[i].reason);
}

const char *guest_directory(const char *path)
{
	static const char *const own[] = {"/proc", "/sys", "/dev"};
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (path_is_below(path, own[i]))
			return own[i];
	return NULL;
}

bool device_is_standard(const char *path)
{
	static const char *const names[] = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strncmp(path, "/dev/", 5) && !strcmp(path + 5, names[i]))
			return true;
	return false;
}
