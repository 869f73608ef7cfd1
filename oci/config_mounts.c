// SPDX-License-Identifier: Apache-2.0
// mounts: decides which of them the host makes, and which the guest.
#include "container.h"

#include "rules.h"

#include <string.h>
#include <sys/mount.h>

enum { SET, CLEAR, BIND, RBIND, NOTHING, COPY_UP, REFUSE };

static const struct {
	const char *name;
	int effect;
	unsigned long flag;
} options[] = {
	{"ro", SET, MS_RDONLY},	 {"rw", CLEAR, MS_RDONLY},	 {"nosuid", SET, MS_NOSUID},   {"suid", CLEAR, MS_NOSUID},
	{"nodev", SET, MS_NODEV}, {"dev", CLEAR, MS_NODEV},	 {"noexec", SET, MS_NOEXEC},   {"exec", CLEAR, MS_NOEXEC},
	{"bind", BIND, 0},	 {"rbind", RBIND, 0},		 {"defaults", NOTHING, 0},     {"async", NOTHING, 0},
	/* the file server updates access times as the mount on the host requires */
	{"atime", NOTHING, 0},	 {"noatime", NOTHING, 0},	 {"diratime", NOTHING, 0},     {"nodiratime", NOTHING, 0},
	{"relatime", NOTHING, 0}, {"norelatime", NOTHING, 0},	 {"strictatime", NOTHING, 0},  {"nostrictatime", NOTHING, 0},
	{"silent", NOTHING, 0},	 {"loud", NOTHING, 0},		 {"nomand", NOTHING, 0},       {"iversion", NOTHING, 0},
	{"noiversion", NOTHING, 0},
	/* later mounts by the host below the source reach the guest; mounts by the guest never reach the host */
	{"private", NOTHING, 0}, {"rprivate", NOTHING, 0},	 {"slave", NOTHING, 0},	       {"rslave", NOTHING, 0},
	{"unbindable", NOTHING, 0}, {"runbindable", NOTHING, 0},
	{"shared", REFUSE, 0},	 {"rshared", REFUSE, 0},	 {"remount", REFUSE, 0},       {"mand", REFUSE, 0},
	{"sync", REFUSE, 0},	 {"dirsync", REFUSE, 0},	 {"idmap", REFUSE, 0},	       {"ridmap", REFUSE, 0},
	{"rro", REFUSE, 0},	 {"rrw", REFUSE, 0},		 {"rnosuid", REFUSE, 0},       {"rnodev", REFUSE, 0},
	{"rnoexec", REFUSE, 0},	 {"copyup", REFUSE, 0},
	{"tmpcopyup", COPY_UP, 0},
};

static const char *append(const char *data, const char *option)
{
	return data ? format_text("%s,%s", data, option) : option;
}

static void parse_options(const struct at *mount, struct mount *m, bool *bind)
{
	struct at all;
	if (!at_member(mount, "options", json_type_array, &all))
		return;
	for (size_t i = 0; i < at_length(&all); i++) {
		struct at at = at_element(&all, i, json_type_string);
		const char *text = at_text(&at);
		int effect = -1;
		for (size_t j = 0; j < sizeof options / sizeof *options && effect < 0; j++) {
			if (strcmp(options[j].name, text))
				continue;
			effect = options[j].effect;
			m->flags |= effect == SET ? options[j].flag : 0;
			m->flags &= effect == CLEAR ? ~options[j].flag : ~0ul;
		}
		if (effect == REFUSE)
			at_fail(&at, "remove the option", "a VM's mounts cannot have the option %s", text);
		*bind |= effect == BIND || effect == RBIND;
		m->recursive |= effect == RBIND;
		m->copy_up |= effect == COPY_UP;
		if (effect < 0)
			m->data = append(m->data, text);
	}
}

/* The guest's kernel mounts it, and supports these options. */
static void check_tmpfs_data(const struct at *mount, const char *data)
{
	static const char *const known[] = {"size=", "mode=", "nr_inodes=", "nr_blocks=", "uid=", "gid="};
	for (const char *word = data; word && *word; word += strcspn(word, ","), word += *word == ',') {
		bool good = false;
		for (size_t i = 0; i < sizeof known / sizeof *known; i++)
			good |= !strncmp(word, known[i], strlen(known[i]));
		if (!good)
			at_fail(mount, "size, mode, uid, gid, nr_inodes and nr_blocks are known", "unknown option of a tmpfs: %.*s",
				(int)strcspn(word, ","), word);
	}
}

static bool is_guests(const char *type, const char *destination)
{
	for (const struct guest_mount *row = guest_mounts; row->type; row++)
		if (!strcmp(row->type, type) &&
		    (row->destination ? !strcmp(row->destination, destination) : guest_directory(destination) != NULL))
			return true;
	return false;
}

static void parse_mount(const struct at *mount, struct container *c)
{
	struct mount m = {.kind = MOUNT_BIND};
	struct at at, source;
	bool bind = false;
	at = at_required(mount, "destination", json_type_string);
	m.destination = tidy_path(&at);
	if (!strcmp(m.destination, "/"))
		at_fail(&at, "use root.path", "the root cannot be replaced");
	const struct at destination = at;
	parse_options(mount, &m, &bind);
	const char *type = at_member(mount, "type", json_type_string, &at) ? at_text(&at) : "";
	bind |= !strcmp(type, "bind") || !strcmp(type, "rbind");
	if (at_member(mount, "uidMappings", json_type_array, &at) || at_member(mount, "gidMappings", json_type_array, &at))
		at_fail(&at, "remove it", "files of a VM belong to one user of the host");
	if (is_guests(bind ? "bind" : type, m.destination))
		return;
	const char *own = guest_directory(m.destination);
	if (own)
		at_fail(&destination, "choose another destination", "%s is below %s, which is the guest's own", m.destination, own);
	if (bind) {
		source = at_required(mount, "source", json_type_string);
		m.source = at_text(&source);
		if (!*m.source)
			at_fail(&source, NULL, "is empty");
		if (m.data)
			at_fail(mount, "remove the option", "unknown option of a bind: %s", m.data);
	} else if (!strcmp(type, "tmpfs")) {
		/* The guest has no access to files that its tmpfs hides. */
		m.kind = m.copy_up ? MOUNT_TMPFS_HOST : MOUNT_TMPFS_GUEST;
		check_tmpfs_data(mount, m.data);
	} else {
		at_fail(mount, "bind, tmpfs, and the usual mounts of proc, sysfs, devpts, mqueue and cgroup are known",
			"a VM cannot mount type '%s' at %s", type, m.destination);
	}
	/* A tmpfs of the guest's kernel would hide mounts below it: in that case, the host mounts the tmpfs. */
	for (size_t i = 0; i < c->mount_count; i++)
		if (c->mounts[i].kind == MOUNT_TMPFS_GUEST && path_is_below(m.destination, c->mounts[i].destination))
			c->mounts[i].kind = MOUNT_TMPFS_HOST;
	c->mounts[c->mount_count++] = m;
}

void parse_mounts(const struct at *config, struct container *c)
{
	struct at all;
	if (!at_member(config, "mounts", json_type_array, &all))
		return;
	c->mounts = allocate(at_length(&all), sizeof *c->mounts);
	for (size_t i = 0; i < at_length(&all); i++) {
		struct at mount = at_element(&all, i, json_type_object);
		parse_mount(&mount, c);
	}
}
