// SPDX-License-Identifier: Apache-2.0
#include "guest_files.h"

#include "diag.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define SIZE_LIMIT (8 << 20)

extern const char guest_init[], guest_init_end[];

struct words {
	char *text;
	size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *format, ...)
{
	char *word;
	va_list args;
	va_start(args, format);
	int length = vasprintf(&word, format, args);
	va_end(args);
	char *text = length < 0 ? NULL : realloc(words->text, words->length + (size_t)length + 1);
	if (!text)
		fail(NULL, "out of memory");
	memcpy(text + words->length, word, (size_t)length + 1);
	words->text = text;
	words->length += (size_t)length + 1;
	if (words->length > SIZE_LIMIT)
		fail(NULL, "arguments and environment are longer than 8 MB");
	free(word);
}

static void add_process(struct words *words, const struct process *p)
{
	for (const char **arg = p->args; *arg; arg++)
		add(words, "arg=%s", *arg);
	for (const char **variable = p->env; *variable; variable++)
		add(words, "env=%s", *variable);
	add(words, "cwd=%s", p->cwd);
	add(words, "uid=%u", p->uid);
	add(words, "gid=%u", p->gid);
	for (size_t i = 0; i < p->group_count; i++)
		add(words, "group=%u", p->groups[i]);
	if (p->umask >= 0)
		add(words, "umask=%d", p->umask);
	for (size_t i = 0; i < p->limit_count; i++)
		add(words, "limit=%d:%" PRIu64 ":%" PRIu64, p->limits[i].resource, p->limits[i].soft, p->limits[i].hard);
	for (int set = 0; p->capabilities_given && set < CAP_SETS; set++)
		add(words, "%s=%" PRIx64, capability_sets[set], p->capabilities[set]);
	if (p->no_new_privileges)
		add(words, "privileges=no");
	if (p->oom_given)
		add(words, "oom=%d", p->oom);
}

const char *process_words(const struct process *process, size_t *length)
{
	struct words words = {NULL, 0};
	add_process(&words, process);
	*length = words.length;
	return words.text;
}

/* net.ipv4.ip_forward is net/ipv4/ip_forward. */
static void add_sysctl(struct words *words, const struct setting *s)
{
	char *path = format_text("%s", s->name);
	for (char *dot = path; (dot = strchr(dot, '.'));)
		*dot = '/';
	add(words, "sysctl=%s=%s", path, s->value);
	free(path);
}

void guest_files_write(const struct container *c, int directory, uid_t uid, gid_t gid)
{
	static const char *const names[] = {GUEST_INIT, GUEST_CONFIG, "empty", "."};
	struct words words = {NULL, 0};
	if (c->process.present)
		add_process(&words, &c->process);
	for (size_t i = 0; i < c->sysctl_count; i++)
		add_sysctl(&words, &c->sysctls[i]);
	if (c->tasks >= 0)
		add(&words, "tasks=%" PRId64, c->tasks);
	if (c->domainname)
		add(&words, "domainname=%s", c->domainname);
	for (size_t i = 0; i < c->mount_count; i++) {
		const struct mount *m = &c->mounts[i];
		if (m->kind == MOUNT_TMPFS_GUEST)
			add(&words, "tmpfs=%lu:%s:%s", m->flags, m->data ? m->data : "", m->destination);
		else if (m->flags & MS_NOEXEC)
			add(&words, "noexec=%s", m->destination);
	}
	write_file_at(directory, GUEST_CONFIG, words.text ? words.text : "", words.length, 0400);
	write_file_at(directory, GUEST_INIT, guest_init, (size_t)(guest_init_end - guest_init), 0500);
	write_file_at(directory, "empty", "", 0, 0444);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (fchownat(directory, names[i], uid, gid, AT_SYMLINK_NOFOLLOW) < 0 && !geteuid())
			fail(NULL, "cannot give the guest's files to user %u:%u: %s", uid, gid, strerror(errno));
	free(words.text);
}
