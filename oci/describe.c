// SPDX-License-Identifier: Apache-2.0
#include "describe.h"

#include "diag.h"
#include "rules.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <json_tokener.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* As podman and runc write it, without what a VM lacks. */
static const char example[] =
	"{\"ociVersion\":\"" SPECIFICATION "\","
	"\"process\":{\"terminal\":true,\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"sh\"],"
	"\"env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\"TERM=xterm\"],"
	"\"cwd\":\"/\",\"noNewPrivileges\":true,"
	"\"capabilities\":{\"bounding\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"],"
	"\"effective\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"],"
	"\"permitted\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"]},"
	"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024}]},"
	"\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"nabla\","
	"\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
	"{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"},"
	"{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\"},"
	"{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\"},"
	"{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\"}],"
	"\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},"
	"{\"type\":\"mount\"},{\"type\":\"cgroup\"}]}}";

void describe_version(void)
{
	puts("nabla-oci version " NABLA_VERSION);
	puts("spec: " SPECIFICATION);
}

static void add_names(struct json_object *object, const char *key, const char *const *names)
{
	struct json_object *list = json_object_new_array();
	for (; *names; names++)
		json_object_array_add(list, json_object_new_string(*names));
	json_object_object_add(object, key, list);
}

static void add_enabled(struct json_object *object, const char *key, bool enabled)
{
	struct json_object *feature = json_object_new_object();
	json_object_object_add(feature, "enabled", json_object_new_boolean(enabled));
	json_object_object_add(object, key, feature);
}

void describe_features(void)
{
	static const char *const hooks[] = {"prestart", "createRuntime", "createContainer", "poststart", "poststop", NULL};
	static const char *const mount_options[] = {
		"async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec",
		"norelatime", "nosuid", "private", "rbind", "relatime", "ro", "rprivate", "rslave", "rw", "slave", "strictatime",
		"suid", "tmpcopyup", NULL};
	static const char *const namespaces[] = {"cgroup", "ipc", "mount", "network", "pid", "uts", NULL};
	struct json_object *all = json_object_new_object(), *section = json_object_new_object(), *known = json_object_new_object();
	json_object_object_add(all, "ociVersionMin", json_object_new_string("1.0.0"));
	json_object_object_add(all, "ociVersionMax", json_object_new_string(SPECIFICATION));
	add_names(all, "hooks", hooks);
	add_names(all, "mountOptions", mount_options);
	add_names(section, "namespaces", namespaces);
	struct json_object *cgroup = json_object_new_object();
	json_object_object_add(cgroup, "v1", json_object_new_boolean(false));
	json_object_object_add(cgroup, "v2", json_object_new_boolean(true));
	json_object_object_add(cgroup, "systemd", json_object_new_boolean(false));
	json_object_object_add(section, "cgroup", cgroup);
	/* a profile is accepted, and has no effect on a VM */
	static const char *const disabled[] = {"seccomp", "apparmor", "selinux", "intelRdt"};
	for (size_t i = 0; i < sizeof disabled / sizeof *disabled; i++)
		add_enabled(section, disabled[i], false);
	json_object_object_add(all, "linux", section);
	json_object_object_add(known, ANNOTATION "version", json_object_new_string(NABLA_VERSION));
	json_object_object_add(all, "annotations", known);
	puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
}

void describe_spec(void)
{
	struct json_object *document = json_tokener_parse(example);
	const char *text = json_object_to_json_string_ext(
		document, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
	int fd = open("config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(errno == EEXIST ? "remove it" : NULL, "cannot create config.json: %s", strerror(errno));
	if (write(fd, text, strlen(text)) < 0 || write(fd, "\n", 1) < 0)
		fail(NULL, "cannot write config.json: %s", strerror(errno));
	close(fd);
}

void describe_rules(void)
{
	puts("| property | effect | reason |\n|---|---|---|");
	for (const struct guest_mount *row = guest_mounts; row->type; row++)
		printf("| mount `%s` at %s%s%s | the guest's | %s |\n", row->type, row->destination ? "`" : "",
		       row->destination ? row->destination : "/proc, /sys or /dev", row->destination ? "`" : "", row->reason);
	for (const struct meaningless *row = meaningless; row->property; row++)
		printf("| %s | none | %s |\n", row->property, row->reason);
	refused_print();
	for (const struct namespace_rule *row = namespace_rules; row->type; row++) {
		if (row->joined)
			printf("| namespace `%s` of another process | refused | %s |\n", row->type, row->joined);
		if (row->created)
			printf("| new namespace `%s` | refused | %s |\n", row->type, row->created);
		if (row->absent)
			printf("| no namespace `%s` | refused | %s |\n", row->type, row->absent);
	}
}
