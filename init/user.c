// SPDX-License-Identifier: Apache-2.0
// Not getpwnam() and its like: those bring stdio with them, which init does without.
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

/* Returns the whole file as a text that is never freed; an empty one if there is none that can be read. */
static char *read_file(const char *path)
{
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
	return text ? text : "";
}

/* A line of colon-separated fields; what is missing is empty. Each points into the text and ends at ':' or '\n'. */
struct record {
	const char *field[FIELDS];
	size_t length[FIELDS];
};

/* Takes the line at *text apart and moves on to the next. Returns false at the end. */
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

static bool is(const struct record *r, int field, const char *text, size_t length)
{
	return r->length[field] == length && !memcmp(r->field[field], text, length);
}

/* Reads an id; -1: it is none. (uid_t)-1 means "leave it" to the kernel, so it is no id either. */
static int64_t to_id(const char *text, size_t length)
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

/* Finds the line whose name it is, or, if it is a number and nobody's name, whose id. */
static bool find_record(const char *file, const char *text, size_t length, struct record *r)
{
	for (const char *at = file; next_record(&at, r);)
		if (is(r, NAME, text, length))
			return true;
	int64_t id = to_id(text, length);
	for (const char *at = file; id >= 0 && next_record(&at, r);)
		if (to_id(r->field[ID], r->length[ID]) == id)
			return true;
	return false;
}

/* Is the name one of those in a group's list? */
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

/* As login does it: the user's own group, and all those that list the name. */
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
		int64_t gid = to_id(r.field[ID], r.length[ID]);
		if (is_member(&r, name, length) && gid >= 0 && gid != user->gid)
			user->groups[user->group_count++] = (gid_t)gid;
	}
	return true;
}

/* A part of a text. */
struct piece {
	const char *at;
	size_t length;
};

static bool set_variable(struct settings *s, const char *key, struct piece value)
{
	size_t key_length = strlen(key);
	char *made = malloc(key_length + value.length + 1);
	if (!made)
		return false;
	memcpy(made, key, key_length);
	memcpy(made + key_length, value.at, value.length);
	made[key_length + value.length] = '\0';
	settings_default(s, made);
	return true;
}

/* Finds an id by name or number; *known: the file has a line for it. */
static bool find_id(const char *path, struct piece wanted, struct record *r, bool *known, uint32_t *id)
{
	*known = find_record(read_file(path), wanted.at, wanted.length, r);
	int64_t found = *known ? to_id(r->field[ID], r->length[ID]) : to_id(wanted.at, wanted.length);
	*id = (uint32_t)found;
	return found >= 0;
}

static bool refuse(const struct settings *s, const char *reason)
{
	static const char before[] = "user ";
	size_t length = strlen(s->user);
	char *what = malloc(sizeof before + length);
	if (what) {
		memcpy(what, before, sizeof before - 1);
		memcpy(what + sizeof before - 1, s->user, length + 1);
	}
	log_error(what ? what : s->user, reason);
	return false;
}

bool user_find(struct settings *s, struct user *user)
{
	struct record r;
	bool known, good = true;
	struct piece wanted = {s->user, strcspn(s->user, ":")}, name = wanted, home = {"/", 1};
	*user = (struct user){0};
	if (!find_id(PASSWD, wanted, &r, &known, &user->uid))
		return refuse(s, "no such user in the guest's " PASSWD);
	user->gid = user->uid;
	if (known) {
		int64_t gid = to_id(r.field[GID], r.length[GID]);
		if (gid < 0)
			return refuse(s, "damaged line in the guest's " PASSWD);
		user->gid = (gid_t)gid;
		name = (struct piece){r.field[NAME], r.length[NAME]};
		if (r.length[HOME])
			home = (struct piece){r.field[HOME], r.length[HOME]};
	}
	if (wanted.at[wanted.length]) {
		struct piece group = {wanted.at + wanted.length + 1, strlen(wanted.at + wanted.length + 1)};
		if (!find_id(GROUP, group, &r, &known, &user->gid))
			return refuse(s, "no such group in the guest's " GROUP);
	} else {
		good = collect_groups(user, name.at, name.length);
	}
	if (!good || !set_variable(s, "HOME=", home) || !set_variable(s, "USER=", name) ||
	    !set_variable(s, "LOGNAME=", name))
		return refuse(s, strerror(ENOMEM));
	return true;
}

bool user_become(const struct user *user)
{
	/* Plain system calls: libc would look after threads which we have not, in memory that is our parent's. */
	for (int fd = 0; fd < 3; fd++)
		fchown(fd, user->uid, (gid_t)-1);
	return !syscall(SYS_setgroups, user->group_count, user->groups) && !syscall(SYS_setgid, user->gid) &&
	       !syscall(SYS_setuid, user->uid);
}
