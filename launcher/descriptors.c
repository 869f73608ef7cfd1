// SPDX-License-Identifier: Apache-2.0
#include "descriptors.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int fd_copy_high(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);
	if (copy < 0 && (errno == EINVAL || errno == EMFILE))
		fail("raise it: ulimit -n", "the limit of open files is too low");
	if (copy < 0)
		fail(NULL, "cannot copy descriptor %d: %s", fd, strerror(errno));
	return copy;
}

int fd_move_high(int fd)
{
	if (fd >= FD_HIGH)
		return fd;
	int copy = fd_copy_high(fd);
	close(fd);
	return copy;
}

void close_range_of(unsigned first, unsigned last)
{
	if (first > last || !syscall(SYS_close_range, first, last, 0))
		return;
	/* for hosts before Linux 5.9, and containers that forbid the call */
	struct rlimit limit = {1024, 1024};
	getrlimit(RLIMIT_NOFILE, &limit);
	unsigned end = limit.rlim_cur < 65536 ? (unsigned)limit.rlim_cur : 65536;
	for (unsigned fd = first; fd < end && fd <= last; fd++)
		close((int)fd);
}

void open_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
			fail(NULL, "cannot open /dev/null: %s", strerror(errno));
}
