// SPDX-License-Identifier: Apache-2.0
#include "share.h"

#include "confine.h"
#include "descriptors.h"
#include "diag.h"
#include "open_path.h"
#include "share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536
#define MEMORY_MAX (UINT64_C(512) << 20) /* see NODES_MAX; address space of the program included */

static int open_directory(const char *path, bool follow_symlinks, const char *option)
{
	struct stat st;
	struct statfs fs;
	int fd = path_open(path, follow_symlinks);
	if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		fail(errno == ENOENT ? "create it" : NULL, "%s: cannot open directory %s: %s", option, path,
		     strerror(errno));
	if (!S_ISDIR(st.st_mode))
		fail("only directories can be shared; --disk adds an image", "%s: %s is not a directory", option, path);
	if (fs.f_type == PROC_SUPER_MAGIC)
		fail(NULL, "%s: %s is in procfs, which cannot be shared", option, path);
	return fd_move_high(fd);
}

/* Links in the directory are resolved in the guest's tree. On hosts without the call, the VM's start shows the error. */
static void check_init(const struct options *o, int root)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	int fd = (int)syscall(SYS_openat2, root, o->init, &how, sizeof how);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
		fail("copy nabla-init to it from an image of this release, or name a program with --init",
		     "directory %s has no %s", o->disks[0].path, o->init);
	if (fd >= 0)
		close(fd);
}

void shares_open(struct options *o, struct share_process shares[SHARES_MAX])
{
	struct stat st;
	for (size_t i = 0; i < SHARES_MAX; i++)
		shares[i] = (struct share_process){.server.ready = -1, .directory = -1};
	int root = path_open(o->disks[0].path, o->follow_symlinks);
	o->disks[0].directory = root >= 0 && !fstat(root, &st) && S_ISDIR(st.st_mode);
	if (root >= 0)
		close(root);
	if (o->disks[0].directory) {
		if (o->disks[0].cow)
			fail("use --read-only, or an image",
			     "--ephemeral: the changes to a directory cannot be discarded");
		o->shares[SHARE_ROOT] = (struct share){.host = o->disks[0].path, .read_only = o->disks[0].read_only};
		shares[SHARE_ROOT].directory = open_directory(o->disks[0].path, o->follow_symlinks, "root");
		check_init(o, shares[SHARE_ROOT].directory);
	}
	for (size_t i = 1; i <= o->mount_count; i++)
		shares[i].directory = open_directory(o->shares[i].host, o->follow_symlinks, "--mount");
	if (!o->disks[0].directory && !o->mount_count)
		return;
	const char *other = o->snapshot ? "snapshot" : o->restore ? "restore" : NULL;
	if (other)
		fail("the state of its files is on the host; copy the files into an image",
		     "--%s: a VM with a shared directory cannot be saved or restored", other);
	if (o->trace_policy)
		fail("it traces calls of the VM, not those of file servers; trace a VM that has images only",
		     "--trace-policy cannot be combined with a shared directory");
}

/* --- the server's process ------------------------------------------------------------------------------------------- */

/* Most frequent first. Neither a new process nor a program, no socket, no signal, no other way to open a file. */
static const uint16_t calls[] = {
	SYS_read, SYS_write, SYS_newfstatat, SYS_fstat, SYS_openat, SYS_close, SYS_pread64, SYS_pwrite64, SYS_getdents64,
	SYS_lseek, SYS_readlinkat, SYS_fstatfs, SYS_unlinkat, SYS_mkdirat, SYS_renameat, SYS_linkat, SYS_symlinkat,
	SYS_mknodat, SYS_fchmodat, SYS_fchmod, SYS_utimensat, SYS_ftruncate, SYS_fsync, SYS_brk, SYS_munmap, SYS_mremap,
	SYS_madvise, SYS_rt_sigreturn, SYS_exit_group,
};
#define CALLS (sizeof calls / sizeof *calls)

/* The number of descriptors that the server may have. */
static size_t raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (limit.rlim_max > DESCRIPTORS_MAX)
		limit.rlim_max = DESCRIPTORS_MAX;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur;
}

static void check_access(const struct options *o, const struct share *share, int directory)
{
	if (!faccessat(directory, ".", R_OK | X_OK, 0))
		return;
	fail(getuid() == 65534 ? "--run-as UID:GID selects its owner" : NULL,
	     "directory %s: user %u:%u cannot read it: %s", share->host, o->run_as.uid, o->run_as.gid, strerror(errno));
}

/* Descriptors that the server keeps, in this order. */
enum { KEPT_SOCKET = SERVER_FIRST, KEPT_DIRECTORY, KEPT_PROC, KEPT_READY, KEPT_END };

static _Noreturn void serve(const struct options *o, const struct share *share, int directory,
			    const struct server_ends *ends)
{
	static struct share_server server;
	int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		fail("mount procfs at /proc", "a shared directory needs /proc/self/fd: %s", strerror(errno));
	proc = fd_move_high(proc);
	pid_t launcher = getppid();
	/* The directory stays in the launcher's mount namespace, with everything that is mounted below it. */
	server_drop(o);
	check_access(o, share, directory);
	server_keep((const int[]){ends->own, directory, proc, ends->ready}, KEPT_END - KEPT_SOCKET);
	server.read_only = share->read_only;
	size_t descriptors = raise_limit();
	server_limit(o, launcher); /* files: the guest's kernel has applied the mask of its program */
	if (!confine_files(KEPT_DIRECTORY, share->read_only))
		fail(errno == EPERM ? "a container may forbid Landlock: allow landlock_create_ruleset, landlock_add_rule "
				      "and landlock_restrict_self in its profile"
				    : NULL,
		     "cannot confine the file server of %s by Landlock: %s", share->host, strerror(errno));
	if (!nodes_start(&server.nodes, KEPT_DIRECTORY, KEPT_PROC, descriptors) || !confine_calls(calls, CALLS, MEMORY_MAX))
		fail(NULL, "cannot confine the file server of %s: %s", share->host, strerror(errno));
	server_ready(KEPT_READY);
	_exit(share_loop(&server, KEPT_SOCKET) ? 0 : 1);
}

static int start(const struct options *o, size_t number, struct share_process *share)
{
	struct server_ends ends;
	if (server_fork(&share->server, &ends))
		serve(o, &o->shares[number], share->directory, &ends);
	close(share->directory);
	share->directory = -1;
	return ends.vm;
}

/* --- the launcher ------------------------------------------------------------------------------------------------------ */

void shares_start(const struct options *o, struct share_process shares[SHARES_MAX], int *streams)
{
	for (size_t i = 0; i < SHARES_MAX; i++)
		if (shares[i].directory >= 0)
			streams[i] = start(o, i, &shares[i]);
}

void shares_wait(const struct options *o, struct share_process shares[SHARES_MAX])
{
	for (size_t i = 0; i < SHARES_MAX; i++) {
		char what[PATH_MAX + 64];
		snprintf(what, sizeof what, "the file server of %s", o->shares[i].host);
		server_wait(&shares[i].server, what);
	}
}

static void ended(const struct share *share, struct share_process *process, int status)
{
	process->server.pid = 0;
	if (WIFSIGNALED(status))
		note("warning: the file server of %s was killed by signal %d", share->host, WTERMSIG(status));
	else if (status)
		note("warning: the file server of %s has ended: the guest sent an invalid message", share->host);
}

void shares_check(const struct options *o, struct share_process shares[SHARES_MAX])
{
	int status;
	for (size_t i = 0; i < SHARES_MAX; i++)
		if (shares[i].server.pid && waitpid(shares[i].server.pid, &status, WNOHANG) == shares[i].server.pid)
			ended(&o->shares[i], &shares[i], status);
}

struct all {
	const struct options *options;
	struct share_process *shares;
};

static void check_all(void *context)
{
	const struct all *all = context;
	shares_check(all->options, all->shares);
}

void shares_end(const struct options *o, struct share_process shares[SHARES_MAX])
{
	struct server *servers[SHARES_MAX];
	for (size_t i = 0; i < SHARES_MAX; i++)
		servers[i] = &shares[i].server;
	server_end(servers, SHARES_MAX, check_all, &(struct all){o, shares});
	for (size_t i = 0; i < SHARES_MAX; i++) {
		if (!shares[i].server.pid)
			continue;
		kill(shares[i].server.pid, SIGKILL);
		/* A server that waits for the host's disk ends when the disk answers: nobody waits for the server. */
		waitpid(shares[i].server.pid, NULL, WNOHANG);
		note("warning: the file server of %s was killed because it did not end within %d seconds: data may be missing",
		     o->shares[i].host, SERVER_END_S);
		shares[i].server.pid = 0;
	}
}
