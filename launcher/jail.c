// SPDX-License-Identifier: Apache-2.0
#include "jail.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static _Noreturn void fail_forbidden(const char *what)
{
	fail("try without --jail: the policy alone denies access to the host's files and network",
	     "--jail: this host does not allow nabla-run to %s: %s", what, strerror(errno));
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int error = errno;
	close(fd);
	errno = error;
	return good;
}

/* Maps the launcher's own user and group, and no other. */
static bool map_own_ids(uid_t uid, gid_t gid)
{
	char text[64];
	if (!write_file("/proc/self/setgroups", "deny"))
		return false;
	snprintf(text, sizeof text, "%u %u 1", uid, uid);
	if (!write_file("/proc/self/uid_map", text))
		return false;
	snprintf(text, sizeof text, "%u %u 1", gid, gid);
	return write_file("/proc/self/gid_map", text);
}

/* Any directory can serve as the mount point: the mount is visible in this namespace only. */
static bool enter_empty_root(void)
{
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k,nr_inodes=1") &&
	       !chdir("/proc") && !syscall(SYS_pivot_root, ".", ".") && !umount2(".", MNT_DETACH) && !chdir("/") &&
	       !mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

void jail_enter(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (!uid) {
		if (unshare(NAMESPACES) < 0)
			fail_forbidden("create namespaces");
	} else if (unshare(CLONE_NEWUSER | NAMESPACES) < 0 || !map_own_ids(uid, gid)) {
		fail_forbidden("create user namespaces");
	}
	if (!enter_empty_root())
		fail_forbidden("change the root directory");
}
