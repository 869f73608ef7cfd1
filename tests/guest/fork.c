// SPDX-License-Identifier: Apache-2.0
// fork(): what parent and child have of their own, and what they share.
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

#define KB 1024UL
#define MB (1024 * KB)

static int in_data = 1;
static int in_bss;

/* Two pipes: one word each way, to take turns. */
struct turns {
	int down[2], up[2];
};

static void turns_open(struct turns *t)
{
	if (pipe(t->down) || pipe(t->up))
		_exit(90);
}

static void turns_close(struct turns *t)
{
	close(t->down[0]), close(t->down[1]), close(t->up[0]), close(t->up[1]);
}

static void test_return_values(void)
{
	pid_t me = getpid();
	pid_t pid = fork();
	if (pid == 0)
		_exit(getppid() == me && getpid() != me ? 42 : 1);
	CHECK(pid > 0 && exited_with(wait_status(pid), 42), "fork returns twice; the child knows its parent");
	pid = _Fork();
	if (pid == 0)
		_exit(43);
	CHECK(exited_with(wait_status(pid), 43), "_Fork");
	pid = syscall(SYS_fork);
	if (pid == 0)
		syscall(SYS_exit_group, 44);
	CHECK(exited_with(wait_status(pid), 44), "the fork system call");
	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		syscall(SYS_exit_group, 45);
	CHECK(exited_with(wait_status(pid), 45), "clone without CLONE_VM");
}

/* Small and large processes go different ways in the kernel. */
static void test_isolation(size_t size, const char *name)
{
	char *heap = memory(size, 3);
	volatile int on_stack = 5;
	struct turns t;
	turns_open(&t);
	in_data = 1, in_bss = 0;
	pid_t pid = fork();
	if (pid == 0) {
		int good = 1;
		for (int round = 0; round < 20; round++) {
			take(t.down[0]);
			good &= in_data == (round ? 100 + round - 1 : 1) && on_stack == (round ? 200 + round - 1 : 5) &&
				in_bss == (round ? 300 + round - 1 : 0) && all(heap, size, round ? 10 + round - 1 : 3);
			in_data = 100 + round, on_stack = 200 + round, in_bss = 300 + round;
			memset(heap, 10 + round, size);
			give(t.up[1]);
		}
		_exit(good ? 42 : 1);
	}
	int good = 1;
	for (int round = 0; round < 20; round++) {
		give(t.down[1]);
		take(t.up[0]);
		good &= in_data == (round ? 500 + round - 1 : 1) && on_stack == (round ? 600 + round - 1 : 5) &&
			in_bss == (round ? 700 + round - 1 : 0) && all(heap, size, round ? 60 + round - 1 : 3);
		in_data = 500 + round, on_stack = 600 + round, in_bss = 700 + round;
		memset(heap, 60 + round, size);
	}
	int status = wait_status(pid);
	char line[100];
	snprintf(line, sizeof line, "%s: the parent sees its own memory only", name);
	CHECK(good && all(heap, size, 79), line);
	snprintf(line, sizeof line, "%s: the child too", name);
	CHECK(exited_with(status, 42), line);
	turns_close(&t);
	munmap(heap, size);
}

static __attribute__((noinline)) int deep(int levels)
{
	volatile char frame[1000];
	memset((char *)frame, levels, sizeof frame);
	int below = levels ? deep(levels - 1) : 0;
	for (size_t i = 0; i < sizeof frame; i++)
		below += frame[i] != (char)levels;
	return below;
}

static void test_stack(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(deep(60) ? 1 : 42);
	int mine = deep(70);
	CHECK(mine == 0 && exited_with(wait_status(pid), 42), "deep stacks on both sides");
}

static int nest(int depth)
{
	volatile int level = depth;
	char *own = memory(40 * KB, depth);
	pid_t pid = depth ? fork() : -1;
	if (pid == 0)
		_exit(nest(depth - 1) && all(own, 40 * KB, depth) ? 42 : 1);
	memset(own, 77, 40 * KB);
	int good = (!depth || exited_with(wait_status(pid), 42)) && level == depth && all(own, 40 * KB, 77);
	munmap(own, 40 * KB);
	return good;
}

static void test_many(void)
{
	enum { CHILDREN = 50 };
	char *heap = memory(2 * MB, 1);
	struct turns t[CHILDREN];
	pid_t pid[CHILDREN];
	int good = 1;
	for (int i = 0; i < CHILDREN; i++) {
		turns_open(&t[i]);
		pid[i] = fork();
		if (pid[i] == 0) {
			for (int round = 0; round < 3; round++) {
				take(t[i].down[0]);
				heap[i * 20000] = i + round;
				heap[500000] = i;
				for (int k = 0; k < CHILDREN; k++)
					if (k != i && k != 25 && heap[k * 20000] != 1)
						_exit(2);
				give(t[i].up[1]);
			}
			_exit(heap[500000] == (char)i && heap[2 * MB - 1] == 1 ? 42 : 1);
		}
	}
	for (int round = 0; round < 3; round++) {
		heap[1900000] = round;
		for (int i = 0; i < CHILDREN; i++)
			give(t[i].down[1]);
		for (int i = 0; i < CHILDREN; i++)
			take(t[i].up[0]);
	}
	for (int i = 0; i < CHILDREN; i++) {
		good &= exited_with(wait_status(pid[i]), 42);
		turns_close(&t[i]);
	}
	heap[1900000] = 1;
	CHECK(good, "50 children of one process write here and there");
	CHECK(all(heap, 2 * MB, 1), "and their parent sees nothing of it");
	munmap(heap, 2 * MB);
}

static void test_kernel_writes(void)
{
	char *heap = memory(1 * MB, 1), source[5000];
	memset(source, 9, sizeof source);
	struct turns t;
	turns_open(&t);
	int data[2];
	if (pipe(data))
		_exit(90);
	pid_t pid = fork();
	if (pid == 0) {
		int good = write(data[1], source, sizeof source) == sizeof source;
		good &= read(data[0], heap + 300001, sizeof source) == sizeof source;
		give(t.up[1]);
		take(t.down[0]);
		_exit(good && all(heap + 300001, sizeof source, 9) && heap[300000] == 1 && heap[305001] == 1 ? 42 : 1);
	}
	take(t.up[0]);
	CHECK(all(heap, 1 * MB, 1), "read() into common memory of a child stays there");
	char before[16];
	memset(heap + 600000, 5, 10);
	snprintf(before, sizeof before, "%d", getpid());
	give(t.down[1]);
	CHECK(exited_with(wait_status(pid), 42), "and is there when the child runs again");
	turns_close(&t);
	close(data[0]), close(data[1]);
	munmap(heap, 1 * MB);
}

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

	struct turns t;
	turns_open(&t);
	pid = fork();
	if (pid == 0) {
		got = 0;
		give(t.up[1]);
		while (!got)
			pause();
		_exit(got == 1 ? 42 : 1);
	}
	take(t.up[0]);
	got = 0;
	/* until the child has slept, and beyond */
	int status = -1;
	for (int i = 0; i < 1000; i++) {
		kill(pid, SIGUSR1);
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		sleep_ms(1);
	}
	CHECK(exited_with(status, 42) && got == 0, "a signal arrives in the child's memory");
	pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	kill(pid, SIGKILL);
	CHECK(killed_by(wait_status(pid), SIGKILL), "kill");
	turns_close(&t);
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
	CHECK(number != before, "another thread goes on in the parent");
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

static void test_exec(void)
{
	char *heap = memory(1 * MB, 1);
	pid_t pid = fork();
	if (pid == 0) {
		memset(heap, 9, 500000);
		execl(SELF, "child", "exit", "23", (char *)NULL);
		_exit(99);
	}
	CHECK(exited_with(wait_status(pid), 23), "exec in a child");
	CHECK(all(heap, 1 * MB, 1), "and the parent is as it was");
	pid = fork();
	if (pid == 0) {
		pid_t inner = vfork();
		if (inner == 0) {
			execl(SELF, "child", "exit", "24", (char *)NULL);
			_exit(99);
		}
		_exit(exited_with(wait_status(inner), 24) && exited_with(run_role("exit", "25"), 25) ? 42 : 1);
	}
	CHECK(exited_with(wait_status(pid), 42), "vfork, exec and posix_spawn in a child");
	pid = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		heap[0] = 2;
		syscall(SYS_exit_group, 26);
	}
	CHECK(exited_with(wait_status(pid), 26) && heap[0] == 1, "CLONE_VFORK without CLONE_VM");
	munmap(heap, 1 * MB);
}

static void test_orphans(void)
{
	struct turns t;
	turns_open(&t);
	char *heap = memory(600 * KB, 1);
	pid_t pid = fork();
	if (pid == 0) {
		pid_t me = getpid();
		if (fork())
			_exit(0);
		for (int i = 0; i < 5000 && getppid() == me; i++)
			sleep_ms(1);
		setsid();
		memset(heap, 0x44, 600 * KB);
		int good = getppid() != me && getsid(0) == getpid() && all(heap, 600 * KB, 0x44);
		if (write(t.up[1], good ? "y" : "n", 1) != 1)
			_exit(1);
		_exit(0);
	}
	CHECK(exited_with(wait_status(pid), 0), "a parent leaves its child");
	char answer = 0;
	CHECK(read(t.up[0], &answer, 1) == 1 && answer == 'y', "which lives on with another parent, in its own session");
	CHECK(all(heap, 600 * KB, 1), "the grandparent's memory is as it was");
	turns_close(&t);
	munmap(heap, 600 * KB);
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
	CHECK(exited_with(wait_status(pid), 42), "the other thread goes on");
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

static void test_shared_anonymous(void)
{
	char *shared = mmap(NULL, 64 * KB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	if (pid == 0) {
		shared[5] = 1;
		pid_t inner = fork();
		if (inner == 0) {
			shared[60000] = 2;
			munmap(shared, 64 * KB);
			_exit(0);
		}
		wait_status(inner);
		munmap(shared, 16 * KB);
		_exit(shared[60000] == 2 ? 42 : 1);
	}
	CHECK(exited_with(wait_status(pid), 42) && shared[5] == 1 && shared[60000] == 2,
	      "MAP_SHARED | MAP_ANONYMOUS is one memory for all");
	shared[20000] = 3;
	CHECK(shared[20000] == 3, "and stays when others unmap theirs");
	munmap(shared, 64 * KB);
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
	CHECK(setpgid(0, 0) == 0 || getpgrp() == getpid(), "process group of its own");
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

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	test_return_values();
	test_isolation(20 * KB, "20 KB");
	test_isolation(3 * MB + 20 * KB, "3 MB");
	test_stack();
	CHECK(nest(5), "five generations");
	test_many();
	test_kernel_writes();
	test_signals();
	test_descriptors();
	test_threads();
	test_exec();
	test_orphans();
	test_clone_flags();
	test_shared_anonymous();
	test_usage();
	test_refused();
	return tap_done();
}
