// SPDX-License-Identifier: Apache-2.0
#include "command.h"

#include "agent.h"
#include "exec.h"
#include "log.h"
#include "network.h"
#include "services.h"
#include "snapshot.h"
#include "stream.h"
#include "system.h"
#include "user.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Time from SIGTERM to SIGKILL, for services and for other processes that outlive the command. */
#define SERVICES_MS 5000
#define GRACE_MS 500

/* Sent to process 1 by halt, poweroff and reboot of busybox. */
static const int stop_signals[] = {SIGUSR1, SIGUSR2, SIGTERM};
#define STOP_SIGNAL_COUNT (sizeof stop_signals / sizeof *stop_signals)

static volatile sig_atomic_t stop_requested;

static void on_child(int number)
{
	(void)number; /* only interrupts sigsuspend() */
}

static void on_stop(int number)
{
	(void)number;
	stop_requested = 1;
}

/* Signals are blocked except while init waits, so that none is lost between a check and the wait. */
static void prepare_signals(sigset_t *waiting)
{
	sigset_t all;
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_child}, NULL);
	for (size_t i = 0; i < STOP_SIGNAL_COUNT; i++)
		sigaction(stop_signals[i], &(struct sigaction){.sa_handler = on_stop}, NULL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	*waiting = all;
	sigdelset(waiting, SIGCHLD);
	for (size_t i = 0; i < STOP_SIGNAL_COUNT; i++)
		sigdelset(waiting, stop_signals[i]);
}

/* Set by a vfork child, which shares the memory. */
static volatile int error;
static const char *volatile what; /* the object that the error concerns */
static bool saves;		  /* this VM saves itself, or was restored from that snapshot */
static pid_t saver;		  /* the process that has become the command; 0: none */

/* On failure, returns the error number. */
static int exec_command(const struct settings *s, const struct user *user)
{
	static char *const shell[] = {"sh", "-l", NULL}; /* a login shell reads /etc/profile */
	sigset_t none;
	what = "/dev/host";
	if (s->terminal)
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	else if (!open_host_streams())
		return errno;
	what = s->user;
	if (user && !user_become(user))
		return errno;
	what = s->workdir;
	if (chdir(s->workdir) < 0)
		return errno;
	what = NULL;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!s->command) {
		execve("/bin/sh", shell, s->env);
		return errno;
	}
	return exec_in_path(s->command[0], s->command, s->env);
}

/* Returns the command's process ID, or its negated exit status if the child could not become the command. */
static pid_t started(const struct settings *s, pid_t pid)
{
	if (pid < 0) {
		log_error("cannot start the command", strerror(errno));
		return -STATUS_NO_START;
	}
	if (!error)
		return pid;
	if (what) {
		log_error(what, strerror(error));
		return -STATUS_NO_START;
	}
	log_error(s->command ? s->command[0] : "/bin/sh", error == ENOENT ? "not found" : strerror(error));
	return error == ENOENT || error == ENOTDIR ? -STATUS_NOT_FOUND : -STATUS_NOT_EXECUTABLE;
}

static pid_t start(struct settings *s)
{
	struct user user;
	if (saver)
		return started(s, saver);
	const char *reason = s->user ? user_find(s, &user) : NULL;
	if (reason) {
		user_report(s->user, reason);
		return -STATUS_NO_START;
	}
	pid_t pid = vfork();
	if (pid == 0) {
		setsid();
		error = exec_command(s, s->user ? &user : NULL);
		_exit(STATUS_NO_START);
	}
	return started(s, pid);
}

void command_configure(const struct settings *s)
{
	if (s->terminal)
		console_mode();
	set_hostname(s->hostname);
	start_network(s);
}

bool command_save(struct settings *s, char **argv)
{
	static volatile bool saved, alone;
	sigset_t waiting;
	saves = true;
	prepare_signals(&waiting);
	snapshot_prepare();
	prepare_power_off();
	services_find_default();
	set_hostname(s->hostname);
	pid_t pid = vfork();
	if (pid == 0) {
		setsid();
		saved = snapshot_boot();
		if (!saved)
			_exit(STATUS_NO_START);
		settings_read(s, argv);
		command_configure(s);
		/* Users and services take time anyway, and get a separate process. */
		/* The original VM only runs its command. */
		alone = s->save || (!services_find(s) && !s->user);
		if (alone)
			error = exec_command(s, NULL);
		_exit(STATUS_NO_START);
	}
	if (pid > 0 && alone)
		saver = pid;
	else if (pid > 0)
		waitpid(pid, NULL, 0);
	return saved;
}

/* Reaps dead children, including adopted orphans. Returns false if no child is left. */
static bool reap(pid_t command, int *status, bool *ended)
{
	for (;;) {
		int raw;
		pid_t pid = waitpid(-1, &raw, WNOHANG);
		if (pid < 0)
			return errno == EINTR;
		if (pid == 0)
			return true;
		if (WIFSTOPPED(raw)) {
			stop_tracing(pid, WSTOPSIG(raw));
		} else if (pid == command) {
			*ended = true;
			*status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
		} else {
			if (!services_ended(pid, raw))
				agent_ended(pid, raw);
		}
	}
}

static long long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Waits until all services, or all other processes, have exited. Returns false after the given time. */
static bool wait_for_exit(bool services, int ms)
{
	int status;
	bool ended;
	sigset_t children;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	long long deadline = now_ms() + ms;
	while (reap(-1, &status, &ended)) {
		if (services && !services_running())
			return true;
		long long left = deadline - now_ms();
		agent_work();
		if (left <= 0)
			return false;
		sigtimedwait(&children, NULL, &(struct timespec){left / 1000, left % 1000 * 1000000});
	}
	return true;
}

/* Stops services first, so that other processes can still handle their last output. */
static void stop_remaining(const struct settings *s, pid_t command)
{
	if (services_stop())
		wait_for_exit(true, SERVICES_MS);
	kill(-1, SIGTERM);
	if (s->terminal && command > 0)
		kill(command, SIGHUP); /* an interactive shell ignores SIGTERM */
	kill(-1, SIGCONT);
	if (wait_for_exit(false, GRACE_MS))
		return;
	kill(-1, SIGKILL);
	wait_for_exit(false, GRACE_MS);
}

int command_run(struct settings *s)
{
	sigset_t waiting;
	bool ended = false, others = true;
	int status = 0;
	prepare_signals(&waiting);
	if (!saves) {
		services_find_default();
		services_find(s);
	}
	/* Without a terminal and a command, the VM runs for its services. */
	bool services_only = !s->save && services_start(s) && !s->command && !s->terminal;
	if (s->control)
		agent_open(s);
	pid_t pid = services_only ? 0 : start(s);
	if (pid < 0) {
		status = -pid;
		ended = true;
	}
	while ((others = reap(pid, &status, &ended)) && !ended && !stop_requested &&
	       (!services_only || services_running()))
		agent_wait(&waiting);
	if (services_only)
		status = services_status();
	if (others)
		stop_remaining(s, ended ? 0 : pid);
	return status;
}
