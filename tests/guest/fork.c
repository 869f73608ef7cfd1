// SPDX-License-Identifier: Apache-2.0
// fork(): the memory of parent and child. fork_state.c tests other inherited state.
#define _GNU_SOURCE
#include "relatives.h"
#include "tap.h"
#include "util.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define KB 1024UL
#define MB (1024 * KB)

static int in_data = 1;
static int in_bss;

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

/* Small and large processes take different paths in the kernel. */
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
	test_exec();
	test_orphans();
	test_shared_anonymous();
	return tap_done();
}
