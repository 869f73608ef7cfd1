// SPDX-License-Identifier: Apache-2.0
#include "control_folder.h"

#include "cache.h"
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OTHERS (S_IRWXG | S_IRWXO)
#define BACKLOG 128
#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

bool control_name_is_valid(const char *name)
{
	size_t length = strlen(name);
	return length && length <= CONTROL_NAME_MAX && strspn(name, ALPHANUMERIC "-._") == length &&
	       strspn(name, ALPHANUMERIC);
}

static bool is_private(int fd)
{
	struct stat st;
	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & OTHERS);
}

/* Closes the parent. */
static int open_in(int parent, const char *name, bool create, const char **why)
{
	if (create)
		mkdirat(parent, name, 0700);
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int error = errno;
	close(parent);
	if (fd < 0) {
		*why = error == ENOENT ? NULL : strerror(error);
		return -1;
	}
	if (!is_private(fd)) {
		close(fd);
		*why = "other users have access to it";
		return -1;
	}
	return fd_move_high(fd);
}

int control_folder(bool create, const char **why)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int parent = runtime && *runtime == '/' ? open(runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	/* after su or sudo it may be another user's */
	if (parent >= 0 && is_private(parent))
		return open_in(parent, "nabla", create, why);
	if (parent >= 0)
		close(parent);
	parent = cache_open(create, why);
	if (parent < 0) {
		if (errno == ENOENT && !create)
			*why = NULL;
		return -1;
	}
	return open_in(parent, "machines", create, why);
}

/* A path to the folder may be too long for a socket address, and one through /proc/self/fd would need procfs. */
static int enter(int folder)
{
	int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fchdir(folder) < 0 && before >= 0) {
		int error = errno;
		close(before);
		errno = error;
		return -2;
	}
	return before;
}

static void leave(int before)
{
	int error = errno;
	if (before >= 0) {
		if (fchdir(before) < 0) /* its permissions have changed: nothing needs it any longer */
			error = errno;
		close(before);
	}
	errno = error;
}

static int make_socket(const char *name, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	strncpy(address->sun_path, name, sizeof address->sun_path - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? fd : fd_move_high(fd);
}

enum control_found control_connect(int folder, const char *name, int *fd)
{
	struct sockaddr_un address;
	struct stat st;
	*fd = -1;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? CONTROL_FOUND_NONE : CONTROL_FOUND_ERROR;
	if (!S_ISSOCK(st.st_mode)) { /* it is not ours, and stays */
		errno = EEXIST;
		return CONTROL_FOUND_ERROR;
	}
	*fd = make_socket(name, &address);
	if (*fd < 0)
		return CONTROL_FOUND_ERROR;
	int before = enter(folder), error = before == -2 ? errno : 0;
	if (!error && connect(*fd, (struct sockaddr *)&address, sizeof address) < 0)
		error = errno;
	leave(before);
	if (!error)
		return CONTROL_FOUND;
	close(*fd);
	*fd = -1;
	errno = error;
	return error == ENOENT ? CONTROL_FOUND_NONE : error == ECONNREFUSED ? CONTROL_FOUND_STALE : CONTROL_FOUND_ERROR;
}

/* It gets its name only when a process listens on it. */
int control_listen(int folder, const char *name)
{
	struct sockaddr_un address;
	char hidden[CONTROL_NAME_MAX + 2] = ".";
	int fd = make_socket(strncat(hidden, name, CONTROL_NAME_MAX), &address);
	if (fd < 0)
		return -1;
	mode_t mask = umask(077);
	int before = enter(folder), error = before == -2 ? errno : 0;
	unlinkat(folder, hidden, 0);
	if (!error && (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0 ||
		       fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || renameat(folder, hidden, folder, name) < 0))
		error = errno;
	leave(before);
	umask(mask);
	if (!error)
		return fd;
	close(fd);
	errno = error;
	return -1;
}

void control_lock(int folder)
{
	while (flock(folder, LOCK_EX) < 0 && errno == EINTR)
		;
}

void control_unlock(int folder)
{
	flock(folder, LOCK_UN);
}
