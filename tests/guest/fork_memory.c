// SPDX-License-Identifier: Apache-2.0
// The memory of relatives: debuggers, process_vm_readv, futexes, direct I/O, vmsplice, unmapping and protection.
#define _GNU_SOURCE
#include "relatives.h"
#include "tap.h"
#include "util.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define PAGE 4096UL
#define SIZE (256 * PAGE)

static int down[2], up[2];

/* /proc/PID/mem and process_vm_readv of a process that is not running, in chunks that differ and that do not */
static void test_remote(void)
{
	char *heap = memory(SIZE, 1), buffer[3 * PAGE], path[40];
	pid_t pid = fork();
	if (pid == 0) {
		memset(heap + 10 * PAGE, 0x77, 5 * PAGE);
		give(up[1]);
		take(down[0]);
		int good = all(heap + 10 * PAGE, PAGE, 0x77) && all(heap + 11 * PAGE, 100, 0x11) &&
			   all(heap + 100 * PAGE, 100, 0x22) && all(heap + 101 * PAGE, PAGE, 1);
		_exit(good ? 42 : 1);
	}
	take(up[0]);
	memset(heap + 10 * PAGE, 0x33, PAGE);
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR);
	CHECK(pread(fd, buffer, 2 * PAGE, (off_t)(heap + 9 * PAGE)) == (ssize_t)(2 * PAGE) && all(buffer, PAGE, 1) &&
		      all(buffer + PAGE, PAGE, 0x77),
	      "/proc/PID/mem shows a child's own contents");
	memset(buffer, 0x11, 100);
	CHECK(pwrite(fd, buffer, 100, (off_t)(heap + 11 * PAGE)) == 100 && all(heap + 11 * PAGE, PAGE, 1),
	      "and writes to the child alone");
	close(fd);
	struct iovec mine = {buffer, 2 * PAGE}, its = {heap + 14 * PAGE, 2 * PAGE};
	CHECK(process_vm_readv(pid, &mine, 1, &its, 1, 0) == (ssize_t)(2 * PAGE) && all(buffer, PAGE, 0x77) &&
		      all(buffer + PAGE, PAGE, 1),
	      "process_vm_readv");
	memset(buffer, 0x22, 100);
	mine.iov_len = its.iov_len = 100;
	its.iov_base = heap + 100 * PAGE;
	CHECK(process_vm_writev(pid, &mine, 1, &its, 1, 0) == 100 && all(heap + 100 * PAGE, PAGE, 1),
	      "process_vm_writev to common memory");
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42), "the child finds what was written");
	CHECK(all(heap + 10 * PAGE, PAGE, 0x33) && all(heap + 11 * PAGE, 240 * PAGE, 1), "the parent's memory is its own");
	munmap(heap, SIZE);
}

static void test_ptrace(void)
{
	long *words = (long *)memory(SIZE, 1);
	pid_t pid = fork();
	if (pid == 0) {
		words[1] = 5;
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(words[0] == 1234 && words[1] == 5678 ? 42 : 1);
	}
	int status;
	CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "a forked child stops for its tracer");
	CHECK(ptrace(PTRACE_PEEKDATA, pid, &words[1], 0) == 5, "PTRACE_PEEKDATA");
	words[1] = 99;
	CHECK(ptrace(PTRACE_POKEDATA, pid, &words[0], 1234) == 0 && ptrace(PTRACE_POKEDATA, pid, &words[1], 5678) == 0 &&
		      words[0] == 0x0101010101010101 && words[1] == 99,
	      "PTRACE_POKEDATA leaves the tracer's own memory alone");
	ptrace(PTRACE_CONT, pid, 0, 0);
	CHECK(exited_with(wait_status(pid), 42), "and reaches the child");
	munmap(words, SIZE);
}

/* a futex in private memory is not that of a relative at the same address */
static void test_futex(void)
{
	int *word = (int *)memory(SIZE, 0);
	struct timespec patience = {20, 0};
	pid_t pid = fork();
	if (pid == 0) {
		give(up[1]);
		for (int i = 0; i < 20; i++) {
			syscall(SYS_futex, word, FUTEX_WAKE, 100, 0, 0, 0);
			syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0);
			sleep_ms(1);
		}
		_exit(0);
	}
	take(up[0]);
	struct timespec brief = {0, 10000000};
	CHECK(syscall(SYS_futex, word, FUTEX_WAIT, 0, &brief, 0, 0) == -1 && errno == ETIMEDOUT,
	      "a child does not wake its parent's futex");
	CHECK(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, &brief, 0, 0) == -1 && errno == ETIMEDOUT,
	      "nor its private one");
	wait_status(pid);

	pthread_mutexattr_t attributes;
	pthread_mutex_t *mutex = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);
	pid = fork();
	if (pid == 0) {
		pthread_mutex_lock(mutex);
		give(up[1]);
		take(down[0]);
		_exit(0);
	}
	take(up[0]);
	CHECK(pthread_mutex_trylock(mutex) == EBUSY, "a process-shared mutex is held by a child");
	give(down[1]);
	(void)patience;
	CHECK(pthread_mutex_lock(mutex) == EOWNERDEAD, "who dies with a robust one leaves it to its parent");
	wait_status(pid);
	munmap(mutex, PAGE);
	munmap(word, SIZE);
}

static void test_direct(void)
{
	char path[] = "fork-memory.tmp";
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	unlink(path);
	if (fd < 0) {
		tap_skip("direct I/O by relatives", "this file system has none");
		return;
	}
	char *heap = memory(SIZE, 1);
	pid_t pid = fork();
	if (pid == 0) {
		memset(heap, 7, 8 * PAGE);
		int good = pwrite(fd, heap, 8 * PAGE, 0) == (ssize_t)(8 * PAGE);
		give(up[1]);
		take(down[0]);
		good &= pread(fd, heap + 20 * PAGE, 8 * PAGE, 0) == (ssize_t)(8 * PAGE);
		_exit(good && all(heap + 20 * PAGE, 8 * PAGE, 9) && all(heap, 8 * PAGE, 7) ? 42 : 1);
	}
	take(up[0]);
	CHECK(pread(fd, heap + 40 * PAGE, 8 * PAGE, 0) == (ssize_t)(8 * PAGE) && all(heap + 40 * PAGE, 8 * PAGE, 7) &&
		      all(heap, 40 * PAGE, 1),
	      "O_DIRECT: a parent reads what its child wrote");
	memset(heap, 9, 8 * PAGE);
	CHECK(pwrite(fd, heap, 8 * PAGE, 0) == (ssize_t)(8 * PAGE), "O_DIRECT: and writes");
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42), "which the child reads into its own memory");
	CHECK(all(heap + 20 * PAGE, 8 * PAGE, 1), "and nobody else's");
	close(fd);
	munmap(heap, SIZE);
}

static void test_vmsplice(void)
{
	char *heap = memory(SIZE, 1), buffer[2 * PAGE];
	int fd[2];
	if (pipe(fd))
		_exit(90);
	pid_t pid = fork();
	if (pid == 0) {
		memset(heap, 5, 2 * PAGE);
		struct iovec from = {heap, 2 * PAGE};
		int good = vmsplice(fd[1], &from, 1, 0) == (ssize_t)(2 * PAGE);
		give(up[1]);
		take(down[0]);
		_exit(good ? 42 : 1);
	}
	take(up[0]);
	memset(heap, 6, 2 * PAGE);
	CHECK(read(fd[0], buffer, 2 * PAGE) == (ssize_t)(2 * PAGE) && all(buffer, 2 * PAGE, 5),
	      "vmsplice: the contents of the one who called it");
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42), "vmsplice in a child");
	close(fd[0]), close(fd[1]);
	munmap(heap, SIZE);
}

static void test_unmap(void)
{
	char *heap = memory(SIZE, 1);
	pid_t pid = fork();
	if (pid == 0) {
		int good = munmap(heap, 30 * PAGE + PAGE) == 0;
		good &= munmap(heap + SIZE - 3 * PAGE, 3 * PAGE) == 0;
		good &= munmap(heap + 100 * PAGE, 7 * PAGE) == 0;
		memset(heap + 31 * PAGE, 2, 69 * PAGE);
		give(up[1]);
		take(down[0]);
		_exit(good && all(heap + 31 * PAGE, 69 * PAGE, 2) && all(heap + 107 * PAGE, 100 * PAGE, 1) ? 42 : 1);
	}
	take(up[0]);
	CHECK(all(heap, SIZE, 1), "what a child unmaps stays its parent's");
	memset(heap, 3, SIZE);
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42) && all(heap, SIZE, 3), "and what it keeps is its own");

	pid = fork();
	if (pid == 0) {
		give(up[1]);
		take(down[0]);
		_exit(all(heap, SIZE, 3) ? 42 : 1);
	}
	take(up[0]);
	munmap(heap + 40 * PAGE, SIZE - 40 * PAGE);
	memset(heap, 4, 40 * PAGE);
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42), "what a parent unmaps stays its child's");
	munmap(heap, 40 * PAGE);
}

/* As shown in /proc/self/maps; whether writes fault is an option of the VM. */
static int is_writable(const char *at)
{
	unsigned long from, to;
	char line[200], rights[5];
	int found = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3 && from <= (unsigned long)at &&
		    (unsigned long)at < to)
			found = rights[1] == 'w';
	if (f)
		fclose(f);
	return found;
}

static void test_protection(void)
{
	char *heap = memory(SIZE, 1);
	mprotect(heap + 64 * PAGE, 16 * PAGE, PROT_READ);
	pid_t pid = fork();
	if (pid == 0) {
		int good = mprotect(heap, 8 * PAGE, PROT_NONE) == 0;
		good &= mprotect(heap + 64 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE) == 0;
		memset(heap + 64 * PAGE, 2, 16 * PAGE);
		give(up[1]);
		take(down[0]);
		good &= all(heap + 64 * PAGE, 16 * PAGE, 2);
		pid_t inner = fork();
		if (inner == 0) {
			heap[0] = 1;
			_exit(0);
		}
		good &= killed_by(wait_status(inner), SIGSEGV);
		good &= mprotect(heap, 8 * PAGE, PROT_READ) == 0 && all(heap, 8 * PAGE, 1);
		_exit(good ? 42 : 1);
	}
	take(up[0]);
	memset(heap, 3, 16 * PAGE);
	CHECK(all(heap + 64 * PAGE, 16 * PAGE, 1), "a child's mprotect makes memory its own");
	CHECK(!is_writable(heap + 64 * PAGE) && is_writable(heap), "the parent's memory is read-only still");
	give(down[1]);
	CHECK(exited_with(wait_status(pid), 42) && all(heap, 16 * PAGE, 3), "PROT_NONE is the child's alone");

	pid = fork();
	if (pid == 0) {
		int good = madvise(heap, 4 * PAGE, MADV_DONTNEED) == 0 && all(heap, 4 * PAGE, 0);
		good &= mmap(heap + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			     0) == heap + 4 * PAGE;
		_exit(good && all(heap, 8 * PAGE, 0) && all(heap + 8 * PAGE, PAGE, 3) ? 42 : 1);
	}
	CHECK(exited_with(wait_status(pid), 42) && all(heap, 16 * PAGE, 3), "MADV_DONTNEED and MAP_FIXED in a child");
	munmap(heap, SIZE);
}

int main(void)
{
	if (pipe(down) || pipe(up))
		return 2;
	test_remote();
	test_ptrace();
	test_futex();
	test_direct();
	test_vmsplice();
	test_unmap();
	test_protection();
	return tap_done();
}
