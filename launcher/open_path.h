/* SPDX-License-Identifier: Apache-2.0 */
/* Opens files that the user names. A file is checked and opened through one descriptor, so nobody can exchange it. */
#ifndef NABLA_OPEN_PATH_H
#define NABLA_OPEN_PATH_H

#include <stdbool.h>

/*
 * Returns an O_PATH descriptor, close-on-exec, or -1 with errno set. Unless follow_symlinks is set, root follows a
 * symbolic link only if root controls it; for any other link this function fails.
 */
int path_open(const char *path, bool follow_symlinks);

/*
 * Opens the file behind an O_PATH descriptor. Without /proc it opens the path again and fails with ESTALE if that leads to
 * another file. Returns -1 with errno set on failure.
 */
int path_reopen(int path_fd, const char *path, int flags);

/* Returns true if the file behind an O_PATH descriptor may be executed. */
bool path_is_executable(int path_fd);

#endif
