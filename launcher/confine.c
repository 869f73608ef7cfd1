// SPDX-License-Identifier: Apache-2.0
#include "confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS_MAX 64

/* --- Landlock, as in linux/landlock.h of Linux 6.12 ----------------------------------------------------------------- */

#define LANDLOCK_VERSION 1u
#define LANDLOCK_PATH_BENEATH 1

enum {
	FS_WRITE_FILE = 1 << 1, FS_READ_FILE = 1 << 2, FS_READ_DIR = 1 << 3, FS_REMOVE_DIR = 1 << 4,
	FS_REMOVE_FILE = 1 << 5, FS_MAKE_DIR = 1 << 7, FS_MAKE_REG = 1 << 8, FS_MAKE_SOCK = 1 << 9, FS_MAKE_FIFO = 1 << 10,
	FS_MAKE_SYM = 1 << 12, FS_REFER = 1 << 13, FS_TRUNCATE = 1 << 14,
};

/* All rights that a version supports; the first lacks FS_REFER, which renaming between directories needs. */
static const uint64_t fs_known[] = {0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};

#define READS (FS_READ_FILE | FS_READ_DIR)
#define WRITES (FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG | FS_MAKE_SOCK | FS_MAKE_FIFO | \
		FS_MAKE_SYM | FS_REFER | FS_TRUNCATE)

struct ruleset {
	uint64_t fs, net, scoped;
};

struct __attribute__((packed)) beneath {
	uint64_t allowed;
	int32_t parent;
};

bool confine_files(int directory, bool read_only)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION);
	if (version < 2) /* none, or one that forbids renaming between directories */
		return version == 1 || errno == ENOSYS || errno == EOPNOTSUPP;
	const long last = (long)(sizeof fs_known / sizeof *fs_known);
	const struct ruleset rules = {
		.fs = fs_known[(version < last ? version : last) - 1],
		.net = version >= 4 ? 0x3 : 0,	  /* bind, connect */
		.scoped = version >= 6 ? 0x3 : 0, /* abstract sockets, signals */
	};
	const struct beneath rule = {.allowed = (READS | (read_only ? 0 : WRITES)) & rules.fs, .parent = directory};
	size_t size = version >= 6 ? sizeof rules : version >= 4 ? offsetof(struct ruleset, scoped)
								 : offsetof(struct ruleset, net);
	int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	if (fd < 0)
		return false;
	bool good = (directory < 0 || !syscall(SYS_landlock_add_rule, fd, LANDLOCK_PATH_BENEATH, &rule, 0)) &&
		    !syscall(SYS_landlock_restrict_self, fd, 0);
	int error = errno;
	close(fd);
	errno = error;
	return good;
}

/* --- system calls -------------------------------------------------------------------------------------------------- */

/* Memory never becomes executable. The third argument of mmap and of mprotect. */
#define PROT_ARGUMENT (offsetof(struct seccomp_data, args) + 2 * sizeof(uint64_t))

static bool set_filter(const uint16_t *calls, size_t count)
{
	struct sock_filter code[CALLS_MAX + 12];
	size_t n = 0;
	if (count > CALLS_MAX) {
		errno = E2BIG;
		return false;
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i],
							 (uint8_t)(count - i + 5), 0);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, PROT_ARGUMENT);
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x4, 0, 1);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {(unsigned short)n, code};
	return !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static bool set_limit(int resource, rlim_t value)
{
	struct rlimit limit;
	if (getrlimit(resource, &limit) < 0)
		return false;
	if (limit.rlim_max < value)
		value = limit.rlim_max;
	limit = (struct rlimit){value, value};
	return !setrlimit(resource, &limit);
}

bool confine_calls(const uint16_t *calls, size_t count, uint64_t memory)
{
	return set_limit(RLIMIT_CORE, 0) && set_limit(RLIMIT_NPROC, 0) && set_limit(RLIMIT_AS, memory) &&
	       !prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) && set_filter(calls, count);
}
