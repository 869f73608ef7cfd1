// SPDX-License-Identifier: Apache-2.0
#include "copy_up.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 64
#define CHUNK (1 << 20)

static bool copy_file(int from, int to, const char *name, const struct stat *st)
{
	int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int target = source < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	ssize_t sent = target < 0 ? -1 : 1;
	while (sent > 0)
		sent = sendfile(target, source, NULL, CHUNK);
	bool good = !sent && !fchown(target, st->st_uid, st->st_gid) && !fchmod(target, st->st_mode & 07777);
	int error = errno;
	if (source >= 0)
		close(source);
	if (target >= 0)
		close(target);
	errno = error;
	return good;
}

static bool copy_link(int from, int to, const char *name)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(from, name, target, sizeof target - 1);
	if (length < 0)
		return false;
	target[length] = '\0';
	return !symlinkat(target, to, name);
}

static bool copy_tree(int from, int to, int depth);

static bool copy_directory(int from, int to, const char *name, const struct stat *st, int depth)
{
	int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), target = -1;
	if (source >= 0 && !mkdirat(to, name, 0700))
		target = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool good = target >= 0 && copy_tree(source, target, depth + 1) && !fchown(target, st->st_uid, st->st_gid) &&
		    !fchmod(target, st->st_mode & 07777);
	int error = errno;
	if (source >= 0)
		close(source);
	if (target >= 0)
		close(target);
	errno = error;
	return good;
}

static bool copy_entry(int from, int to, const char *name, int depth)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (S_ISDIR(st.st_mode))
		return copy_directory(from, to, name, &st, depth);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to, name);
	return !S_ISREG(st.st_mode) || copy_file(from, to, name, &st);
}

static bool copy_tree(int from, int to, int depth)
{
	int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = copy < 0 ? NULL : fdopendir(copy);
	bool good = entries && depth < DEPTH_MAX;
	if (depth == DEPTH_MAX)
		errno = ELOOP;
	for (struct dirent *entry; good && (entry = readdir(entries));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			good = copy_entry(from, to, entry->d_name, depth);
	int error = errno;
	if (entries)
		closedir(entries);
	errno = error;
	return good;
}

bool copy_up(int from, int to)
{
	return copy_tree(from, to, 0);
}
