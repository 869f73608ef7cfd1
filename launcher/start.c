// SPDX-License-Identifier: Apache-2.0
// The child calls no library function but thin system call wrappers: after vfork it shares the parent's memory.
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

/* Sources other than the launcher's own console are at FD_HIGH or above, so no target overwrites a source. */
static bool arrange_descriptors(const struct vm *vm, int link)
{
	for (int target = 0; target < FD_COUNT; target++)
		if (vm->descriptors[target] == target)
			continue;
		else if (vm->descriptors[target] < 0)
			close(target);
		else if (dup2(vm->descriptors[target], target) < 0)
			return false;
	if (dup3(vm->kernel.fd, FD_KERNEL, O_CLOEXEC) < 0 || dup3(link, FD_LINK, O_CLOEXEC) < 0)
		return false;
	close_range_of(FD_COUNT, FD_KERNEL - 1);
	close_range_of(FD_LINK + 1, ~0u);
	return true;
}

/* The VM dies with the launcher, even if that is killed. A dead launcher has closed its end of the link. */
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
	/* The launcher handles stops of the process group; before execve one would also block the parent in vfork. */
	signal(SIGTSTP, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	nice(vm->options->nice);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	syscall(SYS_execveat, FD_KERNEL, "", vm->arguments, no_environment, AT_EMPTY_PATH);
}

static _Noreturn void cannot_run(const struct vm *vm, int error)
{
	const char *hint = NULL;
	if (error == EACCES)
		hint = "the user the VM runs as needs execute permission, see --run-as";
	else if (error == ENOEXEC || error == ENOENT) /* ENOENT: its interpreter */
		hint = "it is not a Nabla Linux kernel";
	else if (error == E2BIG)
		hint = "the command and its environment are too long";
	fail(hint, "cannot run kernel %s: %s", vm->kernel.path, strerror(error));
}

/*
 * vfork copies no page table and returns once the kernel runs. A traced child must wait for its tracer, which needs a
 * real fork. Through the link the child reports a failure, and notices the death of the launcher.
 */
pid_t vm_start(const struct vm *vm)
{
	int ends[2], error = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	int own = fd_move_high(ends[0]), link = fd_move_high(ends[1]);
	pid_t pid = vm->options->trace_policy ? fork() : vfork();
	if (pid < 0)
		fail(errno == EAGAIN ? "the limit of processes is reached" : NULL, "cannot start a process: %s",
		     strerror(errno));
	if (pid == 0) {
		exec_vm(vm, link);
		error = errno;
		_exit(write(FD_LINK, &error, sizeof error) < 0 ? EXIT_OWN_ERROR + 1 : EXIT_OWN_ERROR);
	}
	close(link);
	if (vm->options->trace_policy) {
		trace_attach(pid);
		if (write(own, "", 1) != 1)
			fail(NULL, "cannot start the VM: %s", strerror(errno));
	}
	/* execve closes the child's end. */
	if (read(own, &error, sizeof error) == sizeof error)
		cannot_run(vm, error);
	close(own);
	return pid;
}
