// SPDX-License-Identifier: Apache-2.0
// The launcher trusts nothing that another user could have put into the folder, and no problem with the folder
// is an error.
#include "cache.h"

#include "descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOLDER "/nabla-run"
#define SUFFIX ".snap"
#define OTHERS (S_IRWXG | S_IRWXO)

/* The bounds of the folder, and the space that has to stay free on its file system. */
#define FILES_MAX 32
#define BYTES_MAX (UINT64_C(1) << 30)
#define BYTES_FREE (UINT64_C(256) << 20)

static const char *because(const char *what, int error)
{
	static char text[160];
	snprintf(text, sizeof text, "%s: %s", what, strerror(error));
	return text;
}

/* The folder of the user's caches, according to the XDG base directory specification, which ignores relative
 * paths. */
static bool find_base(char path[PATH_MAX])
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int length = -1;
	if (base && *base == '/')
		length = snprintf(path, PATH_MAX, "%s", base);
	else if (home && *home == '/')
		length = snprintf(path, PATH_MAX, "%s/.cache", home);
	return length > 0 && length < PATH_MAX - (int)sizeof FOLDER;
}

/* Root follows no symbolic link: another user may control it. */
static int open_folder(const char *path)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS};
	if (geteuid())
		return open(path, (int)how.flags);
	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* A folder is created only in a folder of this user, so that root leaves none in another user's home. */
static bool make_folder(char *path)
{
	struct stat st;
	char *name = strrchr(path, '/');
	*name = '\0';
	int parent = open_folder(*path ? path : "/");
	*name = '/';
	if (parent < 0)
		return false;
	bool own = !fstat(parent, &st) && st.st_uid == geteuid();
	bool good = own && (!mkdirat(parent, name + 1, 0700) || errno == EEXIST);
	int error = own ? errno : EACCES;
	close(parent);
	errno = error;
	return good;
}

/* Creates the folder and, if necessary, its parent. base: length of the path of the parent. */
static bool make_folders(char *path, size_t base)
{
	if (make_folder(path))
		return true;
	if (errno != ENOENT)
		return false;
	path[base] = '\0';
	bool good = make_folder(path);
	path[base] = '/';
	return good && make_folder(path);
}

int cache_open(bool create, const char **why)
{
	char path[PATH_MAX];
	struct stat st;
	if (!find_base(path)) {
		*why = "neither XDG_CACHE_HOME nor HOME names a folder";
		return -1;
	}
	size_t base = strlen(path);
	strcpy(path + base, FOLDER);
	int fd = open_folder(path);
	if (fd < 0 && errno == ENOENT && create && make_folders(path, base))
		fd = open_folder(path);
	if (fd < 0) {
		*why = because("the cache folder", errno);
		return -1;
	}
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || st.st_mode & OTHERS) {
		close(fd);
		*why = "other users have access to the cache folder";
		return -1;
	}
	return fd_move_high(fd);
}

int cache_find(int folder, const char *name, const char **why)
{
	struct stat st;
	*why = NULL;
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT)
			*why = because("the snapshot in the cache", errno);
		return -1;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & OTHERS) {
		close(fd);
		*why = "the snapshot in the cache is not this user's file";
		return -1;
	}
	return fd_move_high(fd);
}

int cache_create(int folder, const char **why)
{
	struct statvfs fs;
	if (!fstatvfs(folder, &fs)) {
		if (fs.f_flag & ST_NOEXEC)
			*why = "the file system of the cache folder is mounted noexec";
		else if ((uint64_t)fs.f_bavail * fs.f_frsize < BYTES_FREE)
			*why = "the file system of the cache folder is nearly full";
		if (*why)
			return -1;
	}
	int fd = openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		*why = because("the cache folder", errno);
		return -1;
	}
	return fd_move_high(fd);
}

static bool is_snapshot(const char *name)
{
	size_t length = strlen(name), suffix = sizeof SUFFIX - 1;
	return length > suffix && !strcmp(name + length - suffix, SUFFIX);
}

struct contents {
	unsigned files;
	uint64_t bytes;
	char oldest[CACHE_NAME_MAX];
};

/* Looks for the least recently used file: hosts update the time of access once a day. */
static void look(DIR *dir, struct contents *c)
{
	const struct dirent *entry;
	struct timespec first = {0};
	*c = (struct contents){0};
	rewinddir(dir);
	while ((entry = readdir(dir))) {
		struct stat st;
		if (!is_snapshot(entry->d_name) || strlen(entry->d_name) >= CACHE_NAME_MAX ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode))
			continue;
		c->files++;
		c->bytes += (uint64_t)st.st_blocks * 512;
		if (*c->oldest && (st.st_atim.tv_sec > first.tv_sec ||
				   (st.st_atim.tv_sec == first.tv_sec && st.st_atim.tv_nsec >= first.tv_nsec)))
			continue;
		first = st.st_atim;
		strcpy(c->oldest, entry->d_name);
	}
}

static void remove_old(int folder)
{
	struct contents c;
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return;
	for (look(dir, &c); c.files > 1 && (c.files > FILES_MAX || c.bytes > BYTES_MAX); look(dir, &c))
		if (unlinkat(folder, c.oldest, 0) < 0)
			break;
	closedir(dir);
}

bool cache_publish(int folder, int fd, const char *name, const char **why)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	/* If another start was faster, its file serves as well. */
	if (linkat(AT_FDCWD, path, folder, name, AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST) {
		*why = because("the cache folder", errno);
		return false;
	}
	remove_old(folder);
	return true;
}
