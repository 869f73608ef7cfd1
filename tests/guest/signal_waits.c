// SPDX-License-Identifier: Apache-2.0
// Signals that interrupt or end a wait: restart, timers, sigwait and its relatives, SIGCHLD.
#define _GNU_SOURCE
#include "handlers.h"
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <pthread.h>

static int64_t started;

/* Sends SIGUSR1 to the first thread when it waits in the kernel. */
static void *poke(void *target)
{
	wait_until_asleep(getpid());
	pthread_kill(*(pthread_t *)target, SIGUSR1);
	return NULL;
}

/* Writes when the first thread has handled a signal and waits again. */
static void *write_after_signal(void *fd)
{
	wait_for(&count, 20000);
	wait_until_asleep(getpid());
	if (write((int)(long)fd, "x", 1) != 1)
		return fd;
	return NULL;
}

static void test_interruption(void)
{
	int fds[2];
	char byte;
	pthread_t self = pthread_self(), poker, writer;
	if (pipe(fds))
		return;
	handle(SIGUSR1, counting, 0);
	pthread_create(&poker, NULL, poke, &self);
	CHECK(read(fds[0], &byte, 1) == -1 && errno == EINTR && count == 1, "a signal interrupts read: EINTR");
	pthread_join(poker, NULL);

	handle(SIGUSR1, counting, SA_RESTART);
	pthread_create(&writer, NULL, write_after_signal, (void *)(long)fds[1]);
	pthread_create(&poker, NULL, poke, &self);
	CHECK(read(fds[0], &byte, 1) == 1 && byte == 'x' && count == 1, "with SA_RESTART read continues");
	pthread_join(poker, NULL);
	pthread_join(writer, NULL);

	pthread_create(&poker, NULL, poke, &self);
	struct pollfd poll_fd = {fds[0], POLLIN, 0};
	CHECK(poll(&poll_fd, 1, 20000) == -1 && errno == EINTR, "poll is interrupted even so");
	pthread_join(poker, NULL);

	pthread_create(&poker, NULL, poke, &self);
	struct timespec wait = {100, 0}, left = {0, 0};
	CHECK(nanosleep(&wait, &left) == -1 && errno == EINTR && left.tv_sec > 0 && left.tv_sec <= 100,
	      "nanosleep is interrupted and returns the remaining time");
	pthread_join(poker, NULL);

	char number[16];
	snprintf(number, sizeof number, "%d", fds[0]);
	pid_t child = start_role("read", number);
	count = 0;
	pthread_create(&writer, NULL, write_after_signal, (void *)(long)fds[1]);
	pthread_create(&poker, NULL, poke, &self);
	int status = 0;
	CHECK(waitpid(child, &status, 0) == child && exited_with(status, 0) && count == 1, "waitpid is restarted");
	pthread_join(poker, NULL);
	pthread_join(writer, NULL);
	close(fds[0]);
	close(fds[1]);
}

static void test_timers(void)
{
	handle(SIGALRM, counting, 0);
	started = now_ns();
	struct itimerval timer = {{0, 0}, {0, 50000}};
	setitimer(ITIMER_REAL, &timer, NULL);
	CHECK(pause() == -1 && errno == EINTR && last == SIGALRM, "setitimer and pause");
	CHECK(now_ns() - started >= 49000000, "not too early");
	CHECK(alarm(100) == 0 && alarm(0) == 100, "alarm returns the remaining time");
	count = 0;
	alarm(1);
	pause();
	CHECK(count == 1, "alarm(1)");

	// Into a loop that makes no system call, with a floating point sum that must come out right.
	count = 0;
	timer.it_value.tv_usec = 20000;
	setitimer(ITIMER_REAL, &timer, NULL);
	double sum = 0;
	long turns = 0;
	while (!count) {
		sum += 1.5;
		turns++;
		__asm__ volatile("" : "+x"(sum));
	}
	CHECK(sum == turns * 1.5, "a timer signal into a busy loop; its sum is right");

	handle(SIGVTALRM, counting, 0);
	timer.it_value.tv_usec = 20000;
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
	for (int64_t end = now_ns() + 20000000000; !count && now_ns() < end;)
		;
	CHECK(count == 1, "ITIMER_VIRTUAL counts processor time");
}

static void test_waiting(void)
{
	sigset_t set = set_of(SIGUSR1), old;
	sigprocmask(SIG_BLOCK, &set, &old);
	handle(SIGUSR1, counting, 0);
	int got = 0;
	raise(SIGUSR1);
	CHECK(sigwait(&set, &got) == 0 && got == SIGUSR1 && count == 0, "sigwait takes a pending signal");

	pthread_t self = pthread_self(), poker;
	pthread_create(&poker, NULL, poke, &self);
	siginfo_t info;
	CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_code == SI_TKILL, "sigwaitinfo waits for one");
	pthread_join(poker, NULL);
	struct timespec wait = {0, 30000000};
	CHECK(sigtimedwait(&set, &info, &wait) == -1 && errno == EAGAIN, "sigtimedwait gives up in time");

	pthread_create(&poker, NULL, poke, &self);
	CHECK(sigsuspend(&old) == -1 && errno == EINTR && count == 1, "sigsuspend lets it in");
	pthread_join(poker, NULL);
	raise(SIGUSR1);
	CHECK(count == 1, "and blocks it again");
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK(count == 2, "until the mask is restored");
}

static void test_child_signal(void)
{
	handle_info(SIGCHLD, SA_RESTART);
	pid_t pid = start_role("exit", "9");
	CHECK(exited_with(wait_status(pid), 9), "a child ends");
	CHECK(count == 1 && info_seen.si_pid == pid && info_seen.si_code == CLD_EXITED && info_seen.si_status == 9,
	      "SIGCHLD reports the child and its status");
	count = 0;
	pid = start_role("sleep", "10000");
	kill(pid, SIGKILL);
	wait_status(pid);
	CHECK(count == 1 && info_seen.si_code == CLD_KILLED && info_seen.si_status == SIGKILL, "also of a killed one");
	struct sigaction action = {.sa_handler = SIG_IGN};
	sigaction(SIGCHLD, &action, NULL);
	pid = start_role("exit", "0");
	CHECK(waitpid(pid, NULL, 0) == -1 && errno == ECHILD, "SIGCHLD ignored: no zombie, ECHILD");
	signal(SIGCHLD, SIG_DFL);
}

int main(int argc, char **argv)
{
	char byte;
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	if (is_role(argc, argv, "read"))
		return read(atoi(argv[2]), &byte, 1) != 1;
	if (is_role(argc, argv, "sleep")) {
		sleep_ms(atoi(argv[2]));
		return 0;
	}
	test_interruption();
	test_timers();
	test_waiting();
	test_child_signal();
	return tap_done();
}
