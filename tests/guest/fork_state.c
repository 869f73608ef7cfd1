// SPDX-License-Identifier: Apache-2.0
// fork(): state besides memory that a child does and does not inherit: signals, descriptors, threads, limits.
#define _GNU_SOURCE
#include "relatives.h"
#include "tap.h"
#include "util.h"

#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static volatile sig_atomic_t got;

static void on_signal(int number)
{
	char frame[200];
	memset(frame, number, sizeof frame);
	got += frame[7] == number;
}

static void test_signals(void)
{
	signal(SIGUSR1, on_signal);
	sigset_t set, pending;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	got = 0;
	raise(SIGUSR1);
	struct itimerval timer = {{0, 0}, {1000, 0}};
	setitimer(ITIMER_REAL, &timer, NULL);
	pid_t pid = fork();
	if (pid == 0) {
		int good = sigpending(&pending) == 0 && !sigismember(&pending, SIGUSR1);
		good &= getitimer(ITIMER_REAL, &timer) == 0 && timer.it_value.tv_sec == 0;
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		good &= got == 0;
		raise(SIGUSR1);
		_exit(good && got == 1 ? 42 : 1);
	}
	CHECK(exited_with(wait_status(pid), 42), "handlers and mask are inherited; pending signals and timers are not");
	timer.it_value.tv_sec = 0;
	setitimer(ITIMER_REAL, &timer, NULL);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CHECK(got == 1, "the parent's pending signal is its own");

	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_BLOCK, &set, NULL);
	got = 0;
	pid = fork();
	if (pid == 0) {
		sigsuspend(&none);
		_exit(got == 1 ? 42 : 1);
	}
	kill(pid, SIGUSR1);
	int status = wait_status(pid);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CHECK(exited_with(status, 42) && got == 0, "a signal arrives in the child's memory");
	pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	kill(pid, SIGKILL);
	CHECK(killed_by(wait_status(pid), SIGKILL), "kill");
	signal(SIGUSR1, SIG_DFL);
}

static void test_descriptors(void)
{
	char path[] = "/tmp/fork-XXXXXX";
	int fd = mkstemp(path);
	unlink(path);
	pid_t pid = fork();
	if (pid == 0)
		_exit(write(fd, "hello", 5) == 5 && close(fd) == 0 ? 42 : 1);
	CHECK(exited_with(wait_status(pid), 42) && lseek(fd, 0, SEEK_CUR) == 5, "files and their position are shared");
	CHECK(fcntl(fd, F_GETFD) >= 0, "descriptors are not");
	close(fd);
}

static volatile int counting, stop;

static void *count(void *argument)
{
	volatile unsigned long *counter = argument;
	counting = 1;
	while (!stop)
		++*counter;
	return NULL;
}

static void *fork_in_thread(void *argument)
{
	(void)argument;
	char frame[3000];
	memset(frame, 7, sizeof frame);
	pid_t pid = fork();
	if (pid == 0) {
		frame[10] = 9;
		pthread_t other;
		static volatile unsigned long number;
		stop = counting = 0;
		int good = pthread_create(&other, NULL, count, (void *)&number) == 0;
		good = good && wait_for(&counting, 5000);
		stop = 1;
		good = good && pthread_join(other, NULL) == 0;
		_exit(good && frame[10] == 9 && frame[2999] == 7 ? 42 : 1);
	}
	int good = exited_with(wait_status(pid), 42) && all(frame, sizeof frame, 7);
	return (void *)(intptr_t)good;
}

static void test_threads(void)
{
	static volatile unsigned long number;
	pthread_t other, forker;
	counting = stop = 0;
	pthread_create(&other, NULL, count, (void *)&number);
	wait_for(&counting, 5000);
	struct turns t;
	turns_open(&t);
	pid_t pid = fork();
	if (pid == 0) {
		unsigned long before = number;
		give(t.up[1]);
		take(t.down[0]);
		_exit(number == before ? 42 : 1);
	}
	take(t.up[0]);
	unsigned long before = number;
	for (int i = 0; i < 5000 && number == before; i++)
		sleep_ms(1);
	CHECK(number != before, "another thread continues in the parent");
	give(t.down[1]);
	CHECK(exited_with(wait_status(pid), 42), "and is not there in the child");
	void *good = NULL;
	pthread_create(&forker, NULL, fork_in_thread, NULL);
	pthread_join(forker, &good);
	CHECK(good, "a thread forks, and the child makes threads");
	stop = 1;
	pthread_join(other, NULL);
	turns_close(&t);
}

static void *outlive(void *argument)
{
	volatile pid_t *words = argument;
	while (!words[1])
		sleep_ms(1);
	_exit(42);
}

static void test_clone_flags(void)
{
	struct turns t;
	turns_open(&t);
	static pid_t parent_tid, child_tid;
	int fd = -1;
	pid_t pid = syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, &parent_tid, &child_tid, 0);
	if (pid == 0)
		_exit(child_tid == (pid_t)syscall(SYS_getpid) ? 42 : 1);
	CHECK(parent_tid == pid, "CLONE_PARENT_SETTID writes to the parent");
	CHECK(exited_with(wait_status(pid), 42) && child_tid == 0, "CLONE_CHILD_SETTID to the child alone");

	/* the thread that forked goes, another stays, and the word is cleared where relatives see it */
	pid_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	words[0] = 77;
	pid = syscall(SYS_clone, CLONE_CHILD_CLEARTID | SIGCHLD, 0, 0, &words[0], 0);
	if (pid == 0) {
		pthread_t other;
		if (pthread_create(&other, NULL, outlive, words))
			_exit(1);
		take(t.down[0]);
		syscall(SYS_exit, 0);
	}
	give(t.down[1]);
	struct timespec patience = {20, 0};
	long woken = syscall(SYS_futex, &words[0], 0 /* FUTEX_WAIT */, 77, &patience, 0, 0);
	CHECK((woken == 0 || errno == EAGAIN) && words[0] == 0, "CLONE_CHILD_CLEARTID clears and wakes in shared memory");
	words[1] = 1;
	CHECK(exited_with(wait_status(pid), 42), "the other thread continues");
	munmap(words, 4096);

	pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &fd, 0, 0);
	if (pid == 0) {
		take(t.down[0]);
		_exit(7);
	}
	struct pollfd watched = {fd, POLLIN, 0};
	CHECK(fd >= 0 && poll(&watched, 1, 0) == 0, "CLONE_PIDFD");
	give(t.down[1]);
	siginfo_t info;
	CHECK(poll(&watched, 1, 20000) == 1 && waitid(3 /* P_PIDFD */, fd, &info, WEXITED) == 0 && info.si_status == 7,
	      "the pidfd of a child becomes readable, and is waited for");
	close(fd);
	turns_close(&t);
}

static void test_usage(void)
{
	struct rusage usage;
	pid_t pid = fork();
	if (pid == 0) {
		for (int64_t end = now_ns() + 30000000; now_ns() < end;)
			;
		_exit(3);
	}
	int status;
	CHECK(wait4(pid, &status, 0, &usage) == pid && exited_with(status, 3), "wait4");
	CHECK(setpgid(0, 0) == 0 || getpgrp() == getpid(), "its own process group");
	pid = fork();
	if (pid == 0)
		_exit(getpgrp() == getppid() && getpid() != getpgrp() ? 42 : 1);
	CHECK(exited_with(wait_status(pid), 42), "the group is inherited");
}

static void test_refused(void)
{
	struct rlimit old, none = {0, 0};
	getrlimit(RLIMIT_NPROC, &old);
	none.rlim_max = old.rlim_max;
	pid_t pid = fork();
	if (pid == 0) {
		if (setgid(1234) || setuid(1234) || setrlimit(RLIMIT_NPROC, &none))
			_exit(2);
		_exit(fork() == -1 && errno == EAGAIN ? 42 : 1);
	}
	if (geteuid() == 0)
		CHECK(exited_with(wait_status(pid), 42), "no more processes than the user may have");
	else
		wait_status(pid);
	pid = syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0);
	CHECK(pid == -1 && errno == EINVAL, "clone with CLONE_SIGHAND and without CLONE_VM is refused");
}

int main(void)
{
	test_signals();
	test_descriptors();
	test_threads();
	test_clone_flags();
	test_usage();
	test_refused();
	return tap_done();
}
