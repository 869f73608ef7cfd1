// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

void console_mode(void)
{
	struct termios t;
	if (tcgetattr(STDIN_FILENO, &t) < 0)
		return;
	t.c_iflag = ICRNL | IXON | IUTF8;
	t.c_oflag = OPOST | ONLCR;
	t.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

bool open_host_streams(void)
{
	static const struct {
		const char *path;
		int flags;
	} streams[] = {
		[STDIN_FILENO] = {"/dev/host/stdin", O_RDONLY},
		[STDOUT_FILENO] = {"/dev/host/stdout", O_WRONLY},
		[STDERR_FILENO] = {"/dev/host/stderr", O_WRONLY},
	};
	for (int target = 0; target < 3; target++) {
		int fd = open(streams[target].path, streams[target].flags | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || dup2(fd, target) < 0)
			return false;
		close(fd);
	}
	return true;
}
