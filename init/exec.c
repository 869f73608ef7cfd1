// SPDX-License-Identifier: Apache-2.0
#include "exec.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const char *search_path(char *const *env)
{
	for (; *env; env++)
		if (!strncmp(*env, "PATH=", 5))
			return *env + 5;
	return "";
}

int exec_in_path(const char *file, char *const *argv, char *const *env)
{
	char path[PATH_MAX];
	size_t file_length = strlen(file);
	int reason = ENOENT;
	if (strchr(file, '/')) {
		execve(file, argv, env);
		return errno;
	}
	for (const char *dir = search_path(env); *dir; dir += *dir == ':') {
		size_t length = strcspn(dir, ":");
		if (length + file_length + 2 <= sizeof path) {
			memcpy(path, dir, length);
			path[length] = '/';
			/* an empty entry means the working directory */
			memcpy(path + length + !!length, file, file_length + 1);
			execve(path, argv, env);
			/* Like a shell, continue after a file that is not executable, and report it at the end. */
			if (errno == EACCES)
				reason = EACCES;
			else if (errno != ENOENT && errno != ENOTDIR)
				return errno;
		}
		dir += length;
	}
	return reason;
}
