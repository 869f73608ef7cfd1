// SPDX-License-Identifier: Apache-2.0
// Destinations are resolved inside the root directory: a symbolic link in an image leads nowhere else.
#include "mounts.h"

#include "copy_up.h"
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEPT (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* <linux/mount.h> also defines names of <sys/mount.h>, so it cannot be included. */
struct attributes {
	uint64_t set, clear, propagation, user_namespace;
};
#define ATTRIBUTE_READ_ONLY 1

static int top = -1; /* the root directory */

struct descriptor_path {
	char text[32];
};

static struct descriptor_path path_of(int fd)
{
	struct descriptor_path path;
	snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
	return path;
}

/* Returns an O_PATH descriptor, or -1. */
static int find(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	while (*path == '/')
		path++;
	return (int)syscall(SYS_openat2, top, *path ? path : ".", &how, sizeof how);
}

/* Makes a directory, or an empty file, with all directories above it. Returns an O_PATH descriptor. */
static int make(const char *path, bool directory)
{
	int fd = find(path);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	const char *last = strrchr(path, '/');
	if (!last || last == path) {
		fd = find("/");
	} else {
		fd = make(format_text("%.*s", (int)(last - path), path), true);
		if (fd < 0)
			return -1;
	}
	last = last ? last + 1 : path;
	int made = -1;
	if (directory)
		made = mkdirat(fd, last, 0755);
	else if ((made = openat(fd, last, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644)) >= 0)
		made = close(made);
	int error = errno;
	close(fd);
	errno = error;
	/* a dangling link exists, but cannot be opened */
	return made < 0 ? -1 : find(path);
}

static bool is_directory(int fd)
{
	struct stat st;
	return !fstat(fd, &st) && S_ISDIR(st.st_mode);
}

/* The mount's present flags are kept: a user namespace may not clear them. */
static unsigned long present_flags(const char *path)
{
	struct statvfs fs;
	unsigned long flags = 0;
	if (statvfs(path, &fs) < 0)
		return 0;
	flags |= fs.f_flag & ST_RDONLY ? MS_RDONLY : 0;
	flags |= fs.f_flag & ST_NOSUID ? MS_NOSUID : 0;
	flags |= fs.f_flag & ST_NODEV ? MS_NODEV : 0;
	flags |= fs.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
	flags |= fs.f_flag & ST_NOATIME ? MS_NOATIME : 0;
	flags |= fs.f_flag & ST_RELATIME ? MS_RELATIME : 0;
	flags |= fs.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
	return flags;
}

/* Sets flags of the mount that is now at the path. */
static void restrict_mount(const char *path, unsigned long flags, bool recursive)
{
	int fd = find(path);
	if (fd < 0)
		fail(NULL, "cannot open %s in the root directory: %s", path, strerror(errno));
	struct descriptor_path self = path_of(fd);
	struct attributes read_only = {.set = ATTRIBUTE_READ_ONLY};
	int failed = mount(NULL, self.text, NULL, MS_REMOUNT | MS_BIND | flags | present_flags(self.text), NULL);
	if (!failed && recursive && flags & MS_RDONLY)
		failed = (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof read_only);
	if (failed < 0)
		fail(NULL, "cannot make the mount at %s read-only: %s", path, strerror(errno));
	close(fd);
}

static void bind(const char *source, const char *destination, unsigned long flags, bool recursive)
{
	struct stat st;
	int from = open(source, O_PATH | O_CLOEXEC);
	if (from < 0 || fstat(from, &st) < 0)
		fail(NULL, "mount at %s: cannot open %s: %s", destination, source, strerror(errno));
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		fail("mount the directory that contains a regular file of it",
		     "mount at %s: %s is neither a directory nor a regular file; a VM can share only these", destination,
		     source);
	int to = make(destination, S_ISDIR(st.st_mode));
	if (to < 0)
		fail(NULL, "cannot create %s in the root directory: %s", destination, strerror(errno));
	if (is_directory(to) != !!S_ISDIR(st.st_mode))
		fail(NULL, "mount at %s: one of it and %s is a directory, the other a file", destination, source);
	if (mount(path_of(from).text, path_of(to).text, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL) < 0)
		fail(NULL, "cannot mount %s at %s: %s", source, destination, strerror(errno));
	close(from);
	close(to);
	if (flags & KEPT)
		restrict_mount(destination, flags & KEPT, recursive);
}

/* Without a size it would be half of the host's memory. */
static const char *tmpfs_data(const struct container *c, const struct mount *m)
{
	const char *data = m->data ? m->data : "mode=1777";
	if (strstr(data, "size=") || strstr(data, "nr_blocks="))
		return data;
	return format_text("%s,size=%llu", data, (unsigned long long)c->memory / 2);
}

static void mount_tmpfs(const struct container *c, const struct mount *m)
{
	int below = make(m->destination, true), to;
	if (below < 0 || !is_directory(below))
		fail(NULL, "cannot create directory %s in the root directory: %s", m->destination,
		     below < 0 ? strerror(errno) : "it is a file");
	if (m->kind == MOUNT_TMPFS_HOST) {
		if (mount("tmpfs", path_of(below).text, "tmpfs", MS_NOSUID | MS_NODEV, tmpfs_data(c, m)) < 0)
			fail(NULL, "cannot mount a tmpfs at %s: %s", m->destination, strerror(errno));
		to = find(m->destination);
		if (m->copy_up && (to < 0 || !copy_up(below, to)))
			fail("its size may be too small", "cannot copy the files of %s into a tmpfs: %s", m->destination,
			     strerror(errno));
		close(to);
		if (m->flags & KEPT)
			restrict_mount(m->destination, m->flags & KEPT, false);
	}
	close(below);
}

/* Mounts an empty directory or file over it, or the path itself, read-only. Missing paths need nothing. */
static void cover(const char *path, bool mask, const char *empty_file)
{
	int fd = find(path);
	if (fd < 0)
		return;
	struct descriptor_path self = path_of(fd);
	bool directory = is_directory(fd);
	int failed = !mask	 ? mount(self.text, self.text, NULL, MS_BIND | MS_REC, NULL)
		     : directory ? mount("tmpfs", self.text, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,nr_inodes=1")
				 : mount(empty_file, self.text, NULL, MS_BIND, NULL);
	if (failed)
		fail(NULL, "cannot hide or protect %s: %s", path, strerror(errno));
	close(fd);
	if (!mask || !directory)
		restrict_mount(path, MS_RDONLY, true);
}

void mounts_make(const struct container *c, const char *root, const char *guest)
{
	static const char *const own[] = {"/proc", "/sys", "/dev"};
	if (unshare(CLONE_NEWNS) < 0)
		fail("as an ordinary user, the host must allow user namespaces", "cannot create a mount namespace: %s",
		     strerror(errno));
	/* Later mounts of the host are visible in this namespace, but not the reverse. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		fail(NULL, "cannot separate the mounts: %s", strerror(errno));
	if (mount(root, root, NULL, MS_BIND | MS_REC, NULL) < 0 ||
	    (top = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		fail(NULL, "cannot mount the root directory %s: %s", root, strerror(errno));
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		int fd = make(own[i], true);
		if (fd < 0 || !is_directory(fd))
			fail("the guest's file systems need it", "cannot create directory %s in the root directory: %s", own[i],
			     fd < 0 ? strerror(errno) : "it is a file or a link to nowhere");
		close(fd);
	}
	for (size_t i = 0; i < c->mount_count; i++) {
		const struct mount *m = &c->mounts[i];
		if (m->kind == MOUNT_BIND)
			bind(m->source, m->destination, m->flags, m->recursive);
		else
			mount_tmpfs(c, m);
	}
	bind(guest, "/proc", MS_RDONLY, false);
	for (const char **path = c->masked; *path; path++)
		cover(*path, true, format_text("%s/empty", guest));
	for (const char **path = c->read_only; *path; path++)
		cover(*path, false, NULL);
	if (c->root_read_only)
		restrict_mount("/", MS_RDONLY, false);
	close(top);
}
