// SPDX-License-Identifier: Apache-2.0
// Children: vfork and exec, posix_spawn, system, popen, wait in its forms, exit statuses, arguments and environment.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/resource.h>

static int children_role(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	if (is_role(argc, argv, "pause"))
		for (;;)
			pause();
	if (is_role(argc, argv, "kill-self")) {
		raise(atoi(argv[2]));
		return 0;
	}
	if (is_role(argc, argv, "sum-arguments")) {
		unsigned sum = 0;
		for (int i = 2; i < argc; i++)
			for (char *p = argv[i]; *p; p++)
				sum = sum * 31 + (unsigned char)*p;
		printf("%d %u", argc - 2, sum);
		return 0;
	}
	if (is_role(argc, argv, "print-environment"))
		return puts(getenv(argv[2]) ? getenv(argv[2]) : "(none)") < 0;
	if (is_role(argc, argv, "is-open"))
		return fcntl(atoi(argv[2]), F_GETFD) >= 0;
	if (is_role(argc, argv, "orphan-maker")) {
		char number[12];
		snprintf(number, sizeof number, "%d", getpid());
		setenv("NABLA_PARENT", number, 1);
		return start_role("orphan", argv[2]) < 0;
	}
	if (is_role(argc, argv, "orphan")) { // waits for the end of its parent, then prints the new one
		pid_t parent = atoi(getenv("NABLA_PARENT"));
		for (int i = 0; i < 2000 && getppid() == parent; i++)
			sleep_ms(1);
		dprintf(atoi(argv[2]), "%d", getppid() != parent);
		return 0;
	}
	return 99;
}

/* vfork in separate functions: nothing of the caller can be clobbered when they return twice. */
static pid_t vfork_exit(int code)
{
	pid_t pid = vfork();
	if (pid == 0)
		_exit(code);
	return pid;
}

static pid_t vfork_exec(const char *path, const char *code)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execl(path, "child", "exit", code, (char *)NULL);
		_exit(errno == ENOENT ? 55 : 99);
	}
	return pid;
}

static void test_vfork(void)
{
	static volatile int shared;
	pid_t pid = vfork();
	if (pid == 0) {
		shared = 42;
		_exit(7);
	}
	CHECK(exited_with(wait_status(pid), 7), "vfork and _exit: status arrives");
	CHECK(shared == 42, "vfork: the child wrote in the parent's memory and ran first");

	CHECK(exited_with(wait_status(vfork_exec(SELF, "23")), 23), "vfork and exec");
	CHECK(exited_with(wait_status(vfork_exec("/no/such/file", "1")), 55),
	      "vfork and an exec that fails: the child continues with ENOENT");

	int good = 0;
	for (int i = 0; i < 100; i++)
		good += exited_with(wait_status(vfork_exec(SELF, "3")), 3);
	CHECK(good == 100, "100 times vfork and exec in a row");
}

static void test_statuses(void)
{
	int good = 0;
	for (int code = 0; code < 256; code++)
		good += exited_with(wait_status(vfork_exit(code)), code);
	CHECK(good == 256, "every exit status from 0 to 255");

	static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1,
				    SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF, SIGSYS};
	good = 0;
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++) {
		char number[12];
		snprintf(number, sizeof number, "%d", fatal[i]);
		if (killed_by(run_role("kill-self", number), fatal[i]))
			good++;
		else
			tap_note("signal %d did not kill", fatal[i]);
	}
	CHECK(good == (int)ARRAY_SIZE(fatal), "a child killed by each fatal signal is reported with that signal");

	pid_t pid = start_role("pause", NULL);
	CHECK(waitpid(pid, NULL, WNOHANG) == 0, "waitpid WNOHANG on a running child gives 0");
	CHECK(kill(pid, SIGTERM) == 0 && killed_by(wait_status(pid), SIGTERM), "kill ends a sleeping child");
	CHECK(waitpid(pid, NULL, 0) == -1 && errno == ECHILD, "a second wait: ECHILD");
	CHECK(kill(pid, 0) == -1 && errno == ESRCH, "a reaped pid is gone: ESRCH");

	pid = start_role("exit", "5");
	siginfo_t info = {0};
	CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == pid && info.si_status == 5 &&
		      info.si_code == CLD_EXITED, "waitid with WNOWAIT reports");
	CHECK(exited_with(wait_status(pid), 5), "and leaves the child to be waited for");

	pid = start_role("pause", NULL);
	int status = 0;
	CHECK(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) &&
		      WSTOPSIG(status) == SIGSTOP, "SIGSTOP stops, WUNTRACED reports it");
	CHECK(kill(pid, SIGCONT) == 0 && waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status),
	      "SIGCONT continues, WCONTINUED reports it");
	kill(pid, SIGKILL);
	CHECK(killed_by(wait_status(pid), SIGKILL), "SIGKILL ends it");

	enum { CROWD = 20 };
	pid_t crowd[CROWD];
	for (int i = 0; i < CROWD; i++) {
		char code[12];
		snprintf(code, sizeof code, "%d", i + 1);
		crowd[i] = start_role("exit", code);
	}
	good = 0;
	for (int left = CROWD; left > 0; left--) {
		pid_t got = wait(&status);
		for (int i = 0; i < CROWD; i++)
			if (crowd[i] == got && exited_with(status, i + 1))
				good++;
	}
	CHECK(good == CROWD, "20 children at once, each with its own status");
}

static void test_spawn(void)
{
	pid_t pid;
	int pipe_fds[2];
	char text[64] = "";
	char *missing[] = {"x", NULL};
	CHECK(posix_spawn(&pid, "/no/such/file", NULL, NULL, missing, environ) == ENOENT,
	      "posix_spawn of a missing file returns ENOENT");

	if (pipe(pipe_fds) < 0)
		return;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
	posix_spawn_file_actions_addclose(&actions, pipe_fds[0]);
	setenv("NABLA_COLOUR", "deep blue", 1);
	char *argv[] = {"child", "print-environment", "NABLA_COLOUR", NULL};
	int error = posix_spawn(&pid, SELF, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_fds[1]);
	CHECK(error == 0 && read(pipe_fds[0], text, sizeof text - 1) == 10 && !strcmp(text, "deep blue\n"),
	      "posix_spawn with file actions and an environment");
	CHECK(exited_with(wait_status(pid), 0), "and its exit status");
	close(pipe_fds[0]);

	posix_spawnattr_t attributes;
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&attributes, 0);
	char *sleeper[] = {"child", "pause", NULL};
	error = posix_spawn(&pid, SELF, NULL, &attributes, sleeper, environ);
	CHECK(error == 0 && getpgid(pid) == pid, "posix_spawn into its own process group");
	CHECK(kill(-pid, SIGTERM) == 0 && killed_by(wait_status(pid), SIGTERM), "kill of the whole group");
	posix_spawnattr_destroy(&attributes);
}

static void test_shell(void)
{
	char text[64] = "";
	CHECK(system(NULL) != 0, "system(NULL): there is a shell");
	CHECK(exited_with(system("exit 3"), 3), "system returns the status");
	CHECK(exited_with(system("kill -TERM $$; exit 1"), 1) || killed_by(system("kill -TERM $$; exit 1"), SIGTERM),
	      "system with a shell that kills itself");
	FILE *f = popen("echo one; echo two", "r");
	CHECK(f && fgets(text, sizeof text, f) && !strcmp(text, "one\n") &&
		      fgets(text, sizeof text, f) && !strcmp(text, "two\n"), "popen for reading");
	CHECK(f && pclose(f) == 0, "pclose gives the status");
	f = popen("read line; test \"$line\" = hello", "w");
	CHECK(f && fputs("hello\n", f) >= 0 && exited_with(pclose(f), 0), "popen for writing");
}

/* Runs a child with this argument list, and returns its output. */
static int output_of(char **argv, char *text, size_t size)
{
	int fds[2];
	pid_t pid;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	int error = posix_spawn(&pid, SELF, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	ssize_t n = error ? 0 : read(fds[0], text, size - 1);
	text[n > 0 ? n : 0] = 0;
	close(fds[0]);
	if (!error)
		wait_status(pid);
	errno = error;
	return error;
}

static void test_arguments(void)
{
	enum { MANY = 1500, WIDTH = 30 }; // 60 KB: the arguments of a kernel without MMU must fit in 128 KB
	static char words[MANY][WIDTH];
	static char *argv[MANY + 3];
	unsigned sum = 0;
	char expected[64], text[64];
	argv[0] = "child";
	argv[1] = "sum-arguments";
	for (int i = 0; i < MANY; i++) {
		snprintf(words[i], WIDTH, "argument number %010d", i);
		argv[i + 2] = words[i];
		for (char *p = words[i]; *p; p++)
			sum = sum * 31 + (unsigned char)*p;
	}
	snprintf(expected, sizeof expected, "%d %u", MANY, sum);
	CHECK(output_of(argv, text, sizeof text) == 0 && !strcmp(text, expected), "1500 arguments arrive unharmed");

	char *empty[] = {"child", "sum-arguments", "", "", NULL};
	CHECK(output_of(empty, text, sizeof text) == 0 && !strcmp(text, "2 0"), "empty arguments stay arguments");

	char *huge = malloc(100000);
	memset(huge, 'v', 99999);
	huge[99999] = 0;
	setenv("NABLA_HUGE", huge, 1);
	char *show[] = {"child", "exit", "4", NULL};
	pid_t pid;
	int error = posix_spawn(&pid, SELF, NULL, NULL, show, environ);
	CHECK(error == E2BIG || (!error && exited_with(wait_status(pid), 4)),
	      "an environment variable of 100 KB: works or E2BIG");
	unsetenv("NABLA_HUGE");

	static char *flood[400];
	for (size_t i = 0; i < ARRAY_SIZE(flood) - 1; i++)
		flood[i] = huge;
	error = posix_spawn(&pid, SELF, NULL, NULL, flood, environ);
	CHECK(error == E2BIG, "40 MB of arguments: E2BIG");
	if (!error)
		wait_status(pid);
	free(huge);
	CHECK(exited_with(run_role("exit", "6"), 6), "and the next exec works");
}

static void test_inheritance(void)
{
	char number[12];
	int kept = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
	snprintf(number, sizeof number, "%d", kept);
	CHECK(exited_with(run_role("is-open", number), 1), "a descriptor survives exec");
	snprintf(number, sizeof number, "%d", closed);
	CHECK(exited_with(run_role("is-open", number), 0), "O_CLOEXEC closes it");
	close(kept);
	close(closed);

	int fds[2];
	char answer = 0;
	if (pipe(fds) < 0)
		return;
	snprintf(number, sizeof number, "%d", fds[1]);
	CHECK(exited_with(run_role("orphan-maker", number), 0), "a child leaves an orphan behind");
	CHECK(read(fds[0], &answer, 1) == 1 && answer == '1', "the orphan gets a new parent and continues");
	close(fds[0]);
	close(fds[1]);

	struct rusage usage;
	CHECK(getrusage(RUSAGE_CHILDREN, &usage) == 0 && usage.ru_utime.tv_sec + usage.ru_stime.tv_sec < 3600,
	      "getrusage of the children");
}

static void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void test_exec_of_threaded(void)
{
	CHECK(exited_with(run_role("exec-with-threads", NULL), 9), "exec in a process with threads ends them");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exec-with-threads")) {
		pthread_t t;
		for (int i = 0; i < 3; i++)
			if (pthread_create(&t, NULL, sleep_for_ever, NULL))
				return 98;
		execl(SELF, "child", "exit", "9", (char *)NULL);
		return 97;
	}
	if (argc > 1)
		return children_role(argc, argv);
	test_vfork();
	test_statuses();
	test_spawn();
	test_shell();
	test_arguments();
	test_inheritance();
	test_exec_of_threaded();
	return tap_done();
}
