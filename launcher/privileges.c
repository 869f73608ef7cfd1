// SPDX-License-Identifier: Apache-2.0
#include "privileges.h"

#include "diag.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITIES_MAX 64

/* An execve as root grants no capability, and the bits are locked. */
#define BITS (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED | \
	      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

/* Needs CAP_SETPCAP, which an ordinary user lacks: there is nothing to drop then. */
static void drop_bounding_set(void)
{
	for (int i = 0; i < CAPABILITIES_MAX; i++)
		if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
			break; /* EPERM; EINVAL after the last capability */
	prctl(PR_SET_SECUREBITS, BITS, 0, 0, 0);
}

static void become_user(const struct identity *target)
{
	const char *hint = "--run-as UID selects another user; --run-as 0 runs the VM as root";
	/* A restricted root may have no supplementary groups and no permission to call setgroups() either. */
	if (setgroups(0, NULL) < 0 && getgroups(0, NULL) != 0 && (target->uid || errno != EPERM))
		fail(hint, "cannot drop the supplementary groups: %s", strerror(errno));
	if (setresgid(target->gid, target->gid, target->gid) < 0 || setresuid(target->uid, target->uid, target->uid) < 0)
		fail(errno == EINVAL ? "this user namespace does not map it, see /proc/self/uid_map; "
				       "--run-as selects a mapped user, 0 is root"
				     : hint,
		     "cannot become user %u:%u: %s", target->uid, target->gid, strerror(errno));
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none) < 0)
		fail(NULL, "cannot drop capabilities: %s", strerror(errno));
}

/* Verifies the result, so that a mistake above cannot start a VM. */
static void check(const struct identity *expected)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3];
	uid_t uid[3];
	gid_t gid[3];
	bool good = !getresuid(&uid[0], &uid[1], &uid[2]) && !getresgid(&gid[0], &gid[1], &gid[2]) &&
		    !syscall(SYS_capget, &header, now);
	for (int i = 0; good && i < 3; i++)
		good = uid[i] == expected->uid && gid[i] == expected->gid;
	for (int i = 0; good && i < _LINUX_CAPABILITY_U32S_3; i++)
		good = !(now[i].effective | now[i].permitted | now[i].inheritable);
	if (!good || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		fail(NULL, "the privileges could not be dropped on this host");
}

void privileges_drop(const struct options *o)
{
	drop_bounding_set();
	if (!geteuid())
		become_user(&o->run_as);
	drop_capabilities();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(NULL, "cannot set no_new_privs: %s", strerror(errno));
	check(&o->run_as);
}
