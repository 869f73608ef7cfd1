// SPDX-License-Identifier: Apache-2.0
#include "open_path.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as in the host's kernel */

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* Fails with ELOOP if the path contains a symbolic link, and with ENOSYS on hosts before Linux 5.6. */
static int open_without_links(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Another user must not be able to create, move or replace the link. */
static bool is_trusted(int dir, const struct stat *link)
{
	struct stat st;
	if (link->st_uid != 0 || fstat(dir, &st) < 0 || st.st_uid != 0)
		return false;
	return !(st.st_mode & (S_IWGRP | S_IWOTH)) || st.st_mode & S_ISVTX;
}

/* The links of procfs lead to open files; their text is not a path. */
static bool is_magic(int link)
{
	struct statfs fs;
	return !fstatfs(link, &fs) && fs.f_type == PROC_SUPER_MAGIC;
}

/* What is left of a path that is resolved component by component. */
struct walk {
	const char *path; /* as the user wrote it */
	char rest[2 * PATH_MAX];
	int dir; /* the directory that the rest starts from */
	int links;
};

static int open_component(const struct walk *w, const char *name, int flags)
{
	return openat(w->dir, name, O_PATH | O_CLOEXEC | flags);
}

/* Replaces the current directory. A negative fd is an error and leaves it open. */
static bool enter(struct walk *w, int fd)
{
	if (fd < 0)
		return false;
	close(w->dir);
	w->dir = fd;
	return true;
}

/* Puts the target of a symbolic link in front of the rest. */
static bool follow(struct walk *w, const char *name, bool needs_directory, int link, const struct stat *st)
{
	char target[PATH_MAX];
	if (!is_trusted(w->dir, st))
		fail("name its target, or add --follow-symlinks",
		     "root does not follow the symbolic link %s in %s: another user controls it", name, w->path);
	if (++w->links > LINKS_MAX) {
		errno = ELOOP;
		return false;
	}
	if (is_magic(link))
		return enter(w, open_component(w, name, 0));
	ssize_t length = readlinkat(link, "", target, sizeof target);
	size_t rest = strlen(w->rest);
	if (length <= 0 || (size_t)length + 1 + rest >= sizeof w->rest) {
		errno = length < 0 ? errno : length ? ENAMETOOLONG : ENOENT;
		return false;
	}
	memmove(w->rest + length + 1, w->rest, rest + 1);
	memcpy(w->rest, target, (size_t)length);
	w->rest[length] = '/';
	if (!rest && !needs_directory)
		w->rest[length] = '\0';
	length = (ssize_t)strspn(w->rest, "/");
	memmove(w->rest, w->rest + length, strlen(w->rest + length) + 1);
	return *target != '/' || enter(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* Resolves the first component of the rest. */
static bool step(struct walk *w)
{
	char name[NAME_MAX + 1];
	struct stat st;
	size_t length = strcspn(w->rest, "/");
	if (length > NAME_MAX) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(name, w->rest, length);
	name[length] = '\0';
	bool needs_directory = w->rest[length] == '/';
	length += strspn(w->rest + length, "/");
	memmove(w->rest, w->rest + length, strlen(w->rest + length) + 1);

	int fd = open_component(w, name, O_NOFOLLOW);
	if (fd < 0)
		return false;
	if (fstat(fd, &st) < 0) {
		close(fd);
		return false;
	}
	if (S_ISLNK(st.st_mode)) {
		bool good = follow(w, name, needs_directory, fd, &st);
		int error = errno;
		close(fd);
		errno = error;
		return good;
	}
	if (needs_directory && !S_ISDIR(st.st_mode)) {
		close(fd);
		errno = ENOTDIR;
		return false;
	}
	return enter(w, fd);
}

static int open_with_trusted_links(const char *path)
{
	struct walk w = {.path = path, .dir = open(*path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
	if (w.dir < 0)
		return -1;
	if (strlen(path) >= PATH_MAX) {
		close(w.dir);
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(w.rest, path + strspn(path, "/"));
	while (*w.rest) {
		if (step(&w))
			continue;
		int error = errno;
		close(w.dir);
		errno = error;
		return -1;
	}
	return w.dir;
}

int path_open(const char *path, bool follow_symlinks)
{
	if (geteuid() != 0 || follow_symlinks || !*path)
		return open(path, O_PATH | O_CLOEXEC);
	int fd = open_without_links(path);
	/* EPERM and ENOSYS: containers may forbid the call. */
	if (fd >= 0 || (errno != ELOOP && errno != ENOSYS && errno != EPERM))
		return fd;
	return open_with_trusted_links(path);
}

static void write_proc_path(char *text, size_t size, int fd)
{
	snprintf(text, size, "/proc/self/fd/%d", fd);
}

/* A plain chroot has no /proc: the path must still lead to the file that was checked. */
static int open_same(int path_fd, const char *path, int flags)
{
	struct stat checked, opened;
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (!fstat(path_fd, &checked) && !fstat(fd, &opened) && checked.st_dev == opened.st_dev &&
	    checked.st_ino == opened.st_ino)
		return fd;
	close(fd);
	errno = ESTALE;
	return -1;
}

int path_reopen(int path_fd, const char *path, int flags)
{
	char proc_path[32];
	write_proc_path(proc_path, sizeof proc_path, path_fd);
	int fd = open(proc_path, flags | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && access("/proc/self/fd", F_OK) < 0)
		return open_same(path_fd, path, flags);
	return fd;
}

bool path_is_executable(int path_fd)
{
	char path[32];
	/* Hosts before Linux 5.8 do not have the call. */
	if (!syscall(SYS_faccessat2, path_fd, "", X_OK, AT_EMPTY_PATH))
		return true;
	if (errno != ENOSYS && errno != EPERM)
		return false;
	write_proc_path(path, sizeof path, path_fd);
	return !access(path, X_OK);
}
