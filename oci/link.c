// SPDX-License-Identifier: Apache-2.0
#include "link.h"

#include "diag.h"
#include "json.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void link_make(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		fail(NULL, "cannot create a socket pair: %s", strerror(errno));
}

void link_wait(int link)
{
	char text[8192];
	ssize_t got = read(link, text, sizeof text - 1);
	if (got == 1)
		return;
	if (got <= 0)
		fail(NULL, "a process of the container has ended before it was ready");
	text[got] = '\0';
	fail_with_line(text);
}

void link_done(int link)
{
	if (write(link, "", 1) != 1)
		_exit(EXIT_FAILURE_OWN);
}

void write_pid_file(const char *path, pid_t pid)
{
	char text[16];
	char *directory = format_text("%s", path), *slash = strrchr(directory, '/');
	const char *name = slash ? slash + 1 : path;
	if (slash)
		slash[slash == directory] = '\0';
	int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail(NULL, "--pid-file: cannot open the directory of %s: %s", path, strerror(errno));
	write_file_at(fd, name, text, (size_t)snprintf(text, sizeof text, "%d", pid), 0644);
	close(fd);
}
