// SPDX-License-Identifier: Apache-2.0
// A signal never interrupts the launcher: all of them are blocked and taken one by one, so there is no moment at which
// the terminal could stay raw or the VM be left behind.
#include "vm.h"

#include "diag.h"
#include "kernel.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GRACE_SECONDS 2 /* between asking the VM to end and ending it */

static void block_signals(sigset_t *ours, sigset_t *before)
{
	static const int numbers[] = {SIGWINCH, SIGTSTP, SIGTERM, SIGINT, SIGHUP, SIGQUIT};
	sigemptyset(ours);
	sigaddset(ours, SIGCHLD);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct sigaction now;
		/* What our caller ignores (nohup), stays ignored: once blocked, it would be taken all the same. */
		if (!sigaction(numbers[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(ours, numbers[i]);
	}
	/* Who started us may have ignored it; then there would be no exit status. */
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, ours, before);
}

static void close_from(unsigned first)
{
	if (!syscall(SYS_close_range, first, ~0u, 0))
		return;
	struct rlimit limit = {1024, 1024}; /* a host from before Linux 5.9 */
	getrlimit(RLIMIT_NOFILE, &limit);
	for (unsigned fd = first; fd < limit.rlim_cur && fd < 65536; fd++)
		close((int)fd);
}

/* dup2 of a descriptor onto itself would leave its close-on-exec flag set. */
static bool pass_image(int image)
{
	if (image == IMAGE_FD)
		return !fcntl(image, F_SETFD, 0);
	return dup2(image, IMAGE_FD) == IMAGE_FD;
}

/* vfork: no page table is copied. The child shares our memory until it execs, hence the variables that survive it. */
static pid_t start(const char *kernel, char **argv, int image, const sigset_t *mask)
{
	static volatile int error;
	static char *no_environment[] = {NULL};
	pid_t self = getpid();
	error = 0;
	pid_t pid = vfork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (pid == 0) {
		/* If we die, even by SIGKILL, no VM stays behind; we may be dead already. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(EXIT_OWN_ERROR);
		if (pass_image(image)) {
			close_from(IMAGE_FD + 1);
			sigprocmask(SIG_SETMASK, mask, NULL);
			execve(kernel, argv, no_environment);
		}
		error = errno;
		_exit(EXIT_OWN_ERROR);
	}
	if (error)
		fail(NULL, "cannot run kernel %s: %s", kernel, strerror(error));
	return pid;
}

/* As a shell expects it of a job: the terminal is back in its own mode while we are stopped. */
static void stop_and_continue(pid_t pid)
{
	terminal_restore();
	kill(pid, SIGSTOP);
	raise(SIGSTOP);
	terminal_raw();
	kill(pid, SIGCONT);
	kill(pid, SIGWINCH); /* the window may have changed meanwhile */
}

/* Returns the wait status of the VM, and in *by the signal by which we were told to end it, else 0. */
static int watch(pid_t pid, const sigset_t *signals, int *by)
{
	int status;
	*by = 0;
	for (;;) {
		struct timespec grace = {GRACE_SECONDS, 0};
		int number = *by ? sigtimedwait(signals, NULL, &grace) : sigwaitinfo(signals, NULL);
		switch (number) {
		case -1:
			if (errno == EAGAIN)
				kill(pid, SIGKILL);
			break;
		case SIGCHLD:
			break;
		case SIGWINCH:
			kill(pid, SIGWINCH);
			break;
		case SIGTSTP:
			stop_and_continue(pid);
			break;
		default:
			*by = number;
			kill(pid, SIGCONT);
			kill(pid, SIGTERM);
		}
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
	}
}

int vm_run(const char *kernel, char **argv, int image)
{
	sigset_t signals, before;
	int by;
	block_signals(&signals, &before);
	terminal_raw();
	pid_t pid = start(kernel, argv, image, &before);
	int status = watch(pid, &signals, &by);
	terminal_restore();
	if (by)
		return 128 + by;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	note("the VM was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	return 128 + WTERMSIG(status);
}
