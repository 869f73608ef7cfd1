// SPDX-License-Identifier: Apache-2.0
// A busy loop must not stop other programs: spinning threads and processes share the processor by the host's timer.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/times.h>

static volatile int stop;
static volatile long turns[4];

static void *spin(void *index)
{
	while (!stop)
		turns[(long)index]++;
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[4];
	for (long i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, spin, (void *)i);
	sleep_ms(400);
	stop = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	long least = turns[0], most = turns[0];
	for (int i = 1; i < 4; i++) {
		least = turns[i] < least ? turns[i] : least;
		most = turns[i] > most ? turns[i] : most;
	}
	tap_note("turns of four spinning threads: least %ld, most %ld", least, most);
	CHECK(least > 0, "four spinning threads all get on");
	CHECK(least > most / 20, "and none is starved");
}

/* Waits until a process has spun for 20 ms more. */
static void spin_on(pid_t pid)
{
	struct timespec first = {0, 0}, now = {0, 0};
	clockid_t clock;
	if (!CHECK(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &first) == 0, "the processor time of a child"))
		return;
	do {
		sleep_ms(1);
		clock_gettime(clock, &now);
	} while ((now.tv_sec - first.tv_sec) * 1000000000 + now.tv_nsec - first.tv_nsec < 20000000);
}

static void test_processes(void)
{
	pid_t spinners[3];
	for (int i = 0; i < 3; i++)
		spinners[i] = start_role("spin", NULL);
	int64_t began = now_ns();
	sleep_ms(50);
	int64_t slept = now_ns() - began;
	tap_note("a sleep of 50 ms beside three spinning processes took %ld ms", (long)(slept / 1000000));
	CHECK(slept < 20000000000, "a sleeper wakes up beside three spinning processes");
	began = now_ns();
	CHECK(exited_with(run_role("quick", NULL), 0) && now_ns() - began < 50000000000, "and a new process runs to its end");
	int good = 0;
	for (int i = 0; i < 3; i++) {
		kill(spinners[i], SIGTERM);
		good += killed_by(wait_status(spinners[i]), SIGTERM);
	}
	CHECK(good == 3, "spinning processes die by SIGTERM");

	sigset_t set, old;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	pid_t pid = start_role("spin", NULL); // which inherits the mask
	sigprocmask(SIG_SETMASK, &old, NULL);
	kill(pid, SIGTERM);
	spin_on(pid);
	CHECK(waitpid(pid, NULL, WNOHANG) == 0, "one that blocks SIGTERM continues");
	kill(pid, SIGKILL);
	CHECK(killed_by(wait_status(pid), SIGKILL), "until SIGKILL");

	pid = start_role("spin", NULL);
	spin_on(pid);
	int status = 0;
	kill(pid, SIGSTOP);
	CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "a spinning process can be stopped");
	kill(pid, SIGCONT);
	kill(pid, SIGKILL);
	CHECK(killed_by(wait_status(pid), SIGKILL), "and killed");
}

static void test_accounting(void)
{
	struct rusage before, after;
	getrusage(RUSAGE_SELF, &before);
	for (int64_t end = now_ns() + 300000000; now_ns() < end;)
		for (volatile int i = 0; i < 100000; i++)
			;
	getrusage(RUSAGE_SELF, &after);
	long user = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec - before.ru_utime.tv_usec;
	tap_note("300 ms of spinning count as %ld ms of user time", user / 1000);
	CHECK(user > 100000 && user < 600000, "user time is accounted");
	struct timespec cpu;
	CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0 && (cpu.tv_sec || cpu.tv_nsec > 300000000),
	      "CLOCK_PROCESS_CPUTIME_ID counts");
	CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu) == 0 && cpu.tv_sec < 60, "CLOCK_THREAD_CPUTIME_ID too");

	struct rlimit limit = {1, 2};
	pid_t pid = vfork();
	if (pid == 0) {
		setrlimit(RLIMIT_CPU, &limit);
		execl(SELF, "child", "spin", (char *)NULL);
		_exit(99);
	}
	CHECK(killed_by(wait_status(pid), SIGXCPU), "RLIMIT_CPU ends a spinning process");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "spin"))
		for (;;)
			;
	if (is_role(argc, argv, "quick"))
		return 0;
	test_threads();
	test_processes();
	test_accounting();
	return tap_done();
}
