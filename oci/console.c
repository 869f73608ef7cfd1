// SPDX-License-Identifier: Apache-2.0
#include "console.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

static void send_master(int master, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec text = {(void *)(uintptr_t) "/dev/ptmx", 9};
	struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	if (strlen(path) >= sizeof address.sun_path)
		fail(NULL, "--console-socket: the path is longer than %zu characters", sizeof address.sun_path - 1);
	strcpy(address.sun_path, path);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &master, sizeof master);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
		fail(NULL, "--console-socket: cannot send the terminal to %s: %s", path, strerror(errno));
	close(fd);
}

int console_open(const struct process *process, const char *socket_path)
{
	char name[64];
	bool wanted = process->present && process->terminal;
	if (!wanted && socket_path)
		fail(NULL, "--console-socket: process.terminal is not set in config.json");
	if (!wanted)
		return -1;
	if (!socket_path)
		fail("pass --console-socket", "process.terminal is set, but no socket receives the terminal");
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
	if (master >= 0 && !unlockpt(master) && !ptsname_r(master, name, sizeof name))
		slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		fail(NULL, "cannot create a terminal: %s", strerror(errno));
	struct winsize size = {.ws_row = process->rows, .ws_col = process->columns};
	if (size.ws_row && size.ws_col)
		ioctl(slave, TIOCSWINSZ, &size);
	send_master(master, socket_path);
	close(master);
	return slave;
}

void console_become(int slave)
{
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		fail(NULL, "cannot control the terminal: %s", strerror(errno));
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			fail(NULL, "cannot use the terminal: %s", strerror(errno));
}
