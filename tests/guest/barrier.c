// SPDX-License-Identifier: Apache-2.0
// Write barriers: a program makes memory read-only and learns of the first write to each page by SIGSEGV, as garbage
// collectors do. No write may be missed and none reported twice, also beside relatives that have other rights.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <fcntl.h>

enum { PAGES = 512, SIZE = PAGES * PAGE, RW = PROT_READ | PROT_WRITE };

static char *heap;
static volatile unsigned char marked[PAGES];
static int strange;

static void mark(int signal, siginfo_t *info, void *context)
{
	size_t page = ((char *)info->si_addr - heap) / PAGE;
	(void)signal;
	(void)context;
	if (page >= PAGES || info->si_code != SEGV_ACCERR || marked[page]++) {
		strange++;
		_exit(99);
	}
	mprotect(heap + page * PAGE, PAGE, RW);
}

static void clear(void)
{
	for (size_t i = 0; i < PAGES; i++)
		marked[i] = 0;
}

static void touch(size_t page)
{
	((volatile char *)heap)[page * PAGE] = 1;
}

static void catch_writes(void)
{
	struct sigaction action = {.sa_sigaction = mark, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &action, NULL);
}

/* One collection: all is protected, some pages are written, and just those are marked. */
static int round_of(unsigned step, unsigned value)
{
	int wrong = 0;
	clear();
	wrong += mprotect(heap, SIZE, value & 1 ? PROT_READ : PROT_READ | PROT_EXEC) != 0;
	for (unsigned i = value % step; i < PAGES; i += step) {
		*(volatile unsigned *)(heap + i * PAGE + 8 * (value % 500)) = value;
		*(volatile unsigned *)(heap + i * PAGE) = value;
	}
	for (unsigned i = 0; i < PAGES; i++)
		wrong += marked[i] != (i % step == value % step) ||
			 (marked[i] && *(volatile unsigned *)(heap + i * PAGE) != value);
	return wrong;
}

static void test_rounds(void)
{
	int wrong = 0;
	for (unsigned i = 0; i < 60; i++)
		wrong += round_of(2 + i % 7, i);
	CHECK(wrong == 0 && strange == 0, "each page that was written is reported once, and no other");
	mprotect(heap, SIZE, RW);
	clear();
	memset(heap, 1, SIZE);
	int any = 0;
	for (size_t i = 0; i < PAGES; i++)
		any |= marked[i];
	CHECK(!any, "nothing is, once it is writable again");
}

/* What system calls write is not reported, but refused. */
static void test_calls(void)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	clear();
	memset(heap, 1, SIZE);
	mprotect(heap, SIZE, PROT_READ);
	CHECK(read(fd, heap + 5 * PAGE, 100) == -1 && errno == EFAULT && all_bytes(heap + 5 * PAGE, PAGE, 1) && !marked[5],
	      "read(): EFAULT");
	touch(5);
	CHECK(marked[5] == 1 && read(fd, heap + 5 * PAGE, 100) == 100 && all_bytes(heap + 5 * PAGE, 100, 0), "until it is writable");
	CHECK(madvise(heap + 8 * PAGE, PAGE, MADV_DONTNEED) == 0 && !heap[8 * PAGE] && !marked[8], "MADV_DONTNEED clears it");
	touch(8);
	CHECK(marked[8] == 1, "and leaves it protected");
	char *q = mmap(heap + 9 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	touch(9);
	CHECK(q == heap + 9 * PAGE && !marked[9], "MAP_FIXED does not");
	mprotect(heap, SIZE, RW);
	close(fd);
}

/* Parent and child collect at the same time, and each sees its own writes. */
static void test_relatives(void)
{
	int wrong = 0;
	mprotect(heap, SIZE, PROT_READ);
	clear();
	pid_t pid = fork();
	if (pid == 0) {
		for (unsigned i = 0; i < 20; i++) {
			wrong += round_of(3, 1000 + i);
			sched_yield();
		}
		_exit(wrong ? 1 : 42);
	}
	touch(0);
	wrong += marked[0] != 1;
	for (unsigned i = 0; i < 20; i++) {
		wrong += round_of(5, i);
		sched_yield();
	}
	CHECK(pid > 0 && exited_with(wait_status(pid), 42), "a child has its own");
	CHECK(wrong == 0 && strange == 0, "and its parent, too");
	mprotect(heap, SIZE, RW);
}

static const char literal[2 * PAGE] __attribute__((aligned(PAGE))) = "in the program's image";

/* Who does not catch SIGSEGV is ended by it; what dynamic linkers protect is so if the VM was started so. */
static void test_uncaught(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		mprotect(heap, PAGE, PROT_READ);
		*(volatile char *)heap = 1;
		_exit(5);
	}
	int status = wait_status(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "without a handler it is the end");
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		mprotect((char *)(uintptr_t)literal, PAGE, PROT_READ);
		*(volatile char *)(uintptr_t)literal = 'I';
		_exit(5);
	}
	status = wait_status(pid);
	CHECK(refused ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV : exited_with(status, 5),
	      "a program's image is as the VM was started");
	pid = fork();
	if (pid == 0) {
		mprotect(heap, PAGE, PROT_READ);
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)heap = 1;
		_exit(5);
	}
	status = wait_status(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "and what was protected stays so");
}

int main(void)
{
	look_for_read_only();
	heap = map(SIZE, RW);
	memset(heap, 1, SIZE);
	catch_writes();
	test_rounds();
	test_calls();
	test_relatives();
	test_uncaught();
	return tap_done();
}
