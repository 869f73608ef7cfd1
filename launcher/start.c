// SPDX-License-Identifier: Apache-2.0
// The child makes no call of the C library but bare system calls: it may share our memory.
#include "start.h"

#include "diag.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_from(unsigned first)
{
	if (!syscall(SYS_close_range, first, ~0u, 0))
		return;
	struct rlimit limit = {1024, 1024}; /* a host from before Linux 5.9 */
	getrlimit(RLIMIT_NOFILE, &limit);
	for (unsigned fd = first; fd < limit.rlim_cur && fd < 65536; fd++)
		close((int)fd);
}

/* Ours are all at FD_HIGH or above, so none is overwritten before its turn. */
static bool arrange_descriptors(const struct vm *vm, int link)
{
	for (int target = FD_DISK; target < FD_COUNT; target++)
		if (vm->descriptors[target] < 0)
			close(target);
		else if (dup2(vm->descriptors[target], target) < 0)
			return false;
	if (dup3(vm->kernel.fd, FD_KERNEL, O_CLOEXEC) < 0 || dup3(link, FD_LINK, O_CLOEXEC) < 0)
		return false;
	close_from(FD_LINK + 1);
	return true;
}

/* If we die, even by SIGKILL, no VM stays behind; we may be dead already, then the other end of the link is gone. */
static bool tie_to_launcher(bool wait)
{
	struct pollfd link = {.fd = FD_LINK, .events = POLLIN};
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || poll(&link, 1, wait ? -1 : 0) < 0)
		return false;
	return !(link.revents & (POLLHUP | POLLERR));
}

static void exec_vm(const struct vm *vm, int link)
{
	static char *no_environment[] = {NULL};
	sigset_t none;
	if (!arrange_descriptors(vm, link) || !tie_to_launcher(vm->options->trace_policy) || !limits_set(vm->limits))
		return;
	/* What stops a process group is ours to act upon; before execve it would stop our parent's vfork as well. */
	signal(SIGTSTP, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	syscall(SYS_execveat, FD_KERNEL, "", vm->arguments, no_environment, AT_EMPTY_PATH);
}

static _Noreturn void cannot_run(const struct vm *vm, int error)
{
	const char *hint = NULL;
	if (error == EACCES)
		hint = "whom the machine runs as must be allowed to execute it";
	else if (error == ENOEXEC || error == ENOENT) /* ENOENT: what interprets it */
		hint = "it is not a kernel of nabla";
	else if (error == E2BIG)
		hint = "the command and its environment are too long";
	fail(hint, "cannot run kernel %s: %s", vm->kernel.path, strerror(error));
}

/*
 * vfork: no page table is copied, and we go on when the kernel runs. One that is traced has to wait for its tracer,
 * which takes a real fork. The link tells us of failures, and the child that we live.
 */
pid_t vm_start(const struct vm *vm)
{
	int ends[2], error = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	int ours = fd_move_high(ends[0]), link = fd_move_high(ends[1]);
	pid_t pid = vm->options->trace_policy ? fork() : vfork();
	if (pid < 0)
		fail(errno == EAGAIN ? "there are too many processes" : NULL, "cannot start a process: %s",
		     strerror(errno));
	if (pid == 0) {
		exec_vm(vm, link);
		error = errno;
		_exit(write(FD_LINK, &error, sizeof error) < 0 ? EXIT_OWN_ERROR + 1 : EXIT_OWN_ERROR);
	}
	close(link);
	if (vm->options->trace_policy) {
		trace_attach(pid);
		if (write(ours, "", 1) != 1)
			fail(NULL, "cannot start the machine: %s", strerror(errno));
	}
	/* The other end is closed by execve. */
	if (read(ours, &error, sizeof error) == sizeof error)
		cannot_run(vm, error);
	close(ours);
	return pid;
}
