// SPDX-License-Identifier: Apache-2.0
// Reads the files itself: getpwnam() and getgrnam() would link stdio, which init does not use.
#include "user.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PASSWD "/etc/passwd"
#define GROUP "/etc/group"
#define FIELDS 7
#define SIZE_LIMIT (1 << 20)
#define GROUPS_MAX 65536 /* NGROUPS_MAX of the kernel */

enum { NAME, PASSWORD, ID, GID, MEMBERS = GID, INFO, HOME, SHELL };

/* Returns the content of the file, until it is read again; an empty string if it cannot be read. */
static char *read_file(const char *path)
{
	static char *contents[2];
	char **content = &contents[!strcmp(path, GROUP)];
	struct stat st;
	char *text = NULL;
	size_t length = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &st) && st.st_size > 0 && st.st_size < SIZE_LIMIT)
		text = malloc((size_t)st.st_size + 1);
	if (text) {
		ssize_t got = 0;
		while (length < (size_t)st.st_size && (got = read(fd, text + length, (size_t)st.st_size - length)) > 0)
			length += (size_t)got;
		text[length] = '\0';
	}
	if (fd >= 0)
		close(fd);
	free(*content);
	*content = text;
	return text ? text : "";
}

/* A line of colon-separated fields. Each field points into the text; missing fields are empty. */
struct record {
	const char *field[FIELDS];
	size_t length[FIELDS];
};

/* Parses the line at *text and advances to the next one. Returns false at the end. */
static bool next_record(const char **text, struct record *r)
{
	if (!**text)
		return false;
	for (int i = 0; i < FIELDS; i++) {
		r->field[i] = *text;
		r->length[i] = strcspn(*text, ":\n");
		*text += r->length[i];
		*text += **text == ':';
	}
	*text += strcspn(*text, "\n");
	*text += **text == '\n';
	return true;
}

static bool field_equals(const struct record *r, int field, const char *text, size_t length)
{
	return r->length[field] == length && !memcmp(r->field[field], text, length);
}

/* Parses an ID; returns -1 on a syntax error. (uid_t)-1 is invalid: it means "unchanged" to the kernel. */
static int64_t parse_id(const char *text, size_t length)
{
	int64_t value = 0;
	if (!length || length > 10)
		return -1;
	for (; length; text++, length--) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + *text - '0';
	}
	return value < UINT32_MAX ? value : -1;
}

/* Finds the line with this name or, if no name matches, with this ID. */
static bool find_record(const char *file, const char *text, size_t length, struct record *r)
{
	for (const char *at = file; next_record(&at, r);)
		if (field_equals(r, NAME, text, length))
			return true;
	int64_t id = parse_id(text, length);
	for (const char *at = file; id >= 0 && next_record(&at, r);)
		if (parse_id(r->field[ID], r->length[ID]) == id)
			return true;
	return false;
}

/* Returns true if the group's member list contains the name. */
static bool is_member(const struct record *group, const char *name, size_t length)
{
	const char *at = group->field[MEMBERS], *end = at + group->length[MEMBERS];
	while (at < end) {
		size_t one = 0;
		while (at + one < end && at[one] != ',')
			one++;
		if (one == length && !memcmp(at, name, length))
			return true;
		at += one + 1;
	}
	return false;
}

/* Like login: the user's own group, and all groups that list the name as a member. */
static bool collect_groups(struct user *user, const char *name, size_t length)
{
	struct record r;
	size_t count = 1;
	const char *file = read_file(GROUP);
	for (const char *at = file; next_record(&at, &r);)
		count += is_member(&r, name, length);
	if (count > GROUPS_MAX)
		count = GROUPS_MAX;
	user->groups = malloc(count * sizeof *user->groups);
	if (!user->groups)
		return false;
	user->groups[user->group_count++] = user->gid;
	for (const char *at = file; user->group_count < count && next_record(&at, &r);) {
		int64_t gid = parse_id(r.field[ID], r.length[ID]);
		if (is_member(&r, name, length) && gid >= 0 && gid != user->gid)
			user->groups[user->group_count++] = (gid_t)gid;
	}
	return true;
}

/* A substring. */
struct slice {
	const char *at;
	size_t length;
};

static bool set_variable(struct settings *s, const char *key, struct slice value)
{
	size_t key_length = strlen(key);
	char *variable = malloc(key_length + value.length + 1);
	if (!variable)
		return false;
	memcpy(variable, key, key_length);
	memcpy(variable + key_length, value.at, value.length);
	variable[key_length + value.length] = '\0';
	if (!settings_default(s, variable))
		free(variable);
	return true;
}

/* Finds an ID by name or number. *known: the file has a line for it. */
static bool find_id(const char *path, struct slice wanted, struct record *r, bool *known, uint32_t *id)
{
	*known = find_record(read_file(path), wanted.at, wanted.length, r);
	int64_t result = *known ? parse_id(r->field[ID], r->length[ID]) : parse_id(wanted.at, wanted.length);
	*id = (uint32_t)result;
	return result >= 0;
}

void user_report(const char *name, const char *reason)
{
	static const char prefix[] = "user ";
	size_t length = strlen(name);
	char *what = malloc(sizeof prefix + length);
	if (what) {
		memcpy(what, prefix, sizeof prefix - 1);
		memcpy(what + sizeof prefix - 1, name, length + 1);
	}
	log_error(what ? what : name, reason);
}

const char *user_find(struct settings *s, struct user *user)
{
	struct record r;
	bool known, good = true;
	struct slice wanted = {s->user, strcspn(s->user, ":")}, name = wanted, home = {"/", 1};
	*user = (struct user){0};
	if (!find_id(PASSWD, wanted, &r, &known, &user->uid))
		return "no such user in the guest's " PASSWD;
	user->gid = user->uid;
	if (known) {
		int64_t gid = parse_id(r.field[GID], r.length[GID]);
		if (gid < 0)
			return "damaged line in the guest's " PASSWD;
		user->gid = (gid_t)gid;
		name = (struct slice){r.field[NAME], r.length[NAME]};
		if (r.length[HOME])
			home = (struct slice){r.field[HOME], r.length[HOME]};
	}
	if (wanted.at[wanted.length]) {
		struct slice group = {wanted.at + wanted.length + 1, strlen(wanted.at + wanted.length + 1)};
		if (!find_id(GROUP, group, &r, &known, &user->gid))
			return "no such group in the guest's " GROUP;
	} else {
		good = collect_groups(user, name.at, name.length);
	}
	if (!good || !set_variable(s, "HOME=", home) || !set_variable(s, "USER=", name) ||
	    !set_variable(s, "LOGNAME=", name))
		return strerror(ENOMEM);
	return NULL;
}

bool user_become(const struct user *user)
{
	/* Plain system calls: the libc functions would change state in memory that is shared with the parent. */
	for (int fd = 0; fd < 3; fd++)
		fchown(fd, user->uid, (gid_t)-1);
	return !syscall(SYS_setgroups, user->group_count, user->groups) && !syscall(SYS_setgid, user->gid) &&
	       !syscall(SYS_setuid, user->uid);
}
