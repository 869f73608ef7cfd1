// SPDX-License-Identifier: Apache-2.0
#include "share.h"

#include "descriptors.h"
#include "diag.h"
#include "jail.h"
#include "limits.h"
#include "open_path.h"
#include "privileges.h"
#include "share_confine.h"
#include "share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (4 << 20) /* requested of the socket; the host may grant less */
#define DESCRIPTORS_MAX 65536
#define END_MS 5000
#define QUICK 20

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

/* Links in the directory are the guest's. Hosts that lack the call find out when the VM starts. */
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
		shares[i] = (struct share_process){.directory = -1, .ready = -1};
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
		fail("its tracer stops at calls of the VM alone, not at those of file servers; trace a VM with images only",
		     "--trace-policy cannot be combined with a shared directory");
}

/* --- the server's process ------------------------------------------------------------------------------------------- */

static void close_others(const int *kept, size_t count)
{
	unsigned first = 0;
	/* kept: ascending */
	for (size_t i = 0; i < count; i++) {
		if ((unsigned)kept[i] > first)
			close_range_of(first, (unsigned)kept[i] - 1);
		first = (unsigned)kept[i] + 1;
	}
	close_range_of(first, ~0u);
}

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
enum { KEPT_STDERR = 2, KEPT_SOCKET, KEPT_DIRECTORY, KEPT_PROC, KEPT_READY, KEPT_END };

static _Noreturn void serve(const struct options *o, const struct share *share, int directory, int socket, int ready)
{
	static struct share_server server;
	int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		fail("mount procfs at /proc", "a shared directory needs /proc/self/fd: %s", strerror(errno));
	proc = fd_move_high(proc);
	pid_t launcher = getppid();
	sigset_t none;
	sigemptyset(&none);
	/* The terminal's signals must not end it: it lives as long as the socket. */
	setsid();
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* the guest gets the error */
	/* The directory stays one of the launcher's mount namespace, with all that is mounted below it. */
	if (o->jail)
		jail_enter();
	privileges_drop(o);
	check_access(o, share, directory);
	if (dup2(socket, KEPT_SOCKET) < 0 || dup2(directory, KEPT_DIRECTORY) < 0 || dup2(proc, KEPT_PROC) < 0 ||
	    dup2(ready, KEPT_READY) < 0)
		fail(NULL, "cannot start a file server: %s", strerror(errno));
	close_others((const int[]){KEPT_STDERR, KEPT_SOCKET, KEPT_DIRECTORY, KEPT_PROC, KEPT_READY}, 5);
	if (!limit_processor_time(o))
		fail(NULL, "cannot limit the processor time of a file server: %s", strerror(errno));
	nice(o->nice);
	umask(0); /* the guest's kernel has applied the mask of its program */
	server.read_only = share->read_only;
	size_t descriptors = raise_limit();
	/* A change of the user cancels it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != launcher)
		_exit(EXIT_OWN_ERROR);
	if (!confine_files(KEPT_DIRECTORY, share->read_only))
		fail(errno == EPERM ? "a container may forbid Landlock: allow landlock_create_ruleset, landlock_add_rule "
				      "and landlock_restrict_self in its profile"
				    : NULL,
		     "cannot confine the file server of %s by Landlock: %s", share->host, strerror(errno));
	if (!nodes_start(&server.nodes, KEPT_DIRECTORY, KEPT_PROC, descriptors) || !confine_calls())
		fail(NULL, "cannot confine the file server of %s: %s", share->host, strerror(errno));
	if (write(KEPT_READY, "", 1) != 1)
		_exit(EXIT_OWN_ERROR);
	close(KEPT_READY);
	close(KEPT_STDERR);
	_exit(share_loop(&server, KEPT_SOCKET) ? 0 : 1);
}

static int start(const struct options *o, size_t number, struct share_process *share)
{
	int pair[2], ready[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a socket pair: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		pair[i] = fd_move_high(pair[i]);
		ready[i] = fd_move_high(ready[i]);
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &(int){BUFFER}, sizeof(int));
	}
	share->pid = fork();
	if (share->pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!share->pid) {
		close(pair[0]);
		close(ready[0]);
		serve(o, &o->shares[number], share->directory, pair[1], ready[1]);
	}
	close(pair[1]);
	close(ready[1]);
	close(share->directory);
	share->directory = -1;
	share->ready = ready[0];
	return pair[0];
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
		char byte;
		int status = 0;
		if (shares[i].ready < 0)
			continue;
		ssize_t got = read(shares[i].ready, &byte, 1);
		close(shares[i].ready);
		shares[i].ready = -1;
		if (got == 1)
			continue;
		waitpid(shares[i].pid, &status, 0);
		if (WIFEXITED(status)) /* it has said why */
			exit(EXIT_OWN_ERROR);
		fail(NULL, "the file server of %s was killed by signal %d", o->shares[i].host, WTERMSIG(status));
	}
}

static void ended(const struct share *share, struct share_process *process, int status)
{
	process->pid = 0;
	if (WIFSIGNALED(status))
		note("warning: the file server of %s was killed by signal %d", share->host, WTERMSIG(status));
	else if (status)
		note("warning: the file server of %s has ended: the guest sent an invalid message", share->host);
}

void shares_check(const struct options *o, struct share_process shares[SHARES_MAX])
{
	int status;
	for (size_t i = 0; i < SHARES_MAX; i++)
		if (shares[i].pid && waitpid(shares[i].pid, &status, WNOHANG) == shares[i].pid)
			ended(&o->shares[i], &shares[i], status);
}

static bool any_runs(const struct share_process shares[SHARES_MAX])
{
	for (size_t i = 0; i < SHARES_MAX; i++)
		if (shares[i].pid)
			return true;
	return false;
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void shares_end(const struct options *o, struct share_process shares[SHARES_MAX])
{
	uint64_t deadline = now_ms() + END_MS;
	shares_check(o, shares);
	/* most often they end at once */
	for (int turn = 0; any_runs(shares) && now_ms() < deadline; turn++) {
		nanosleep(&(struct timespec){0, turn < QUICK ? 50000 : 1000000}, NULL);
		shares_check(o, shares);
	}
	for (size_t i = 0; i < SHARES_MAX; i++) {
		if (!shares[i].pid)
			continue;
		kill(shares[i].pid, SIGKILL);
		/* One that waits for the host's disk ends when that answers: nobody waits for it. */
		waitpid(shares[i].pid, NULL, WNOHANG);
		note("warning: the file server of %s was killed because it did not end within %d seconds: data may be missing",
		     o->shares[i].host, END_MS / 1000);
		shares[i].pid = 0;
	}
}
