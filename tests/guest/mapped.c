// SPDX-License-Identifier: Apache-2.0
// Private mappings of files: pages are read when they are touched, by the program or by the kernel, and hold what the
// file has there; untouched pages take no memory. The file may shrink, relatives may touch first, signals may come.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { SIZE = 16 * MB, WORDS = SIZE / 4 };

static const char *directory = "/root";
static char path[64];

static unsigned word_at(size_t offset)
{
	return (unsigned)(offset / 4) * 2654435761U + 12345;
}

/* Returns whether `at` has the contents of the file from this offset on. */
static int right(const void *at, size_t size, size_t offset)
{
	const unsigned *p = at;
	for (size_t i = 0; i < size; i += 4)
		if (p[i / 4] != word_at(offset + i))
			return 0;
	return 1;
}

static int make_file(void)
{
	static unsigned block[MB / 4];
	snprintf(path, sizeof path, "%s/mapped-XXXXXX", directory);
	int fd = mkostemp(path, O_CLOEXEC);
	for (size_t at = 0; fd >= 0 && at < SIZE; at += MB) {
		for (size_t i = 0; i < MB / 4; i++)
			block[i] = word_at(at + 4 * i);
		if (write(fd, block, MB) != MB)
			return -1;
	}
	return fd;
}

static char *map_file(int fd, size_t size, int protection)
{
	return mmap(NULL, size, protection, MAP_PRIVATE, fd, 0);
}

static long resident(void)
{
	char line[256];
	long kilobytes = -1;
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "VmRSS:", 6))
			kilobytes = strtol(line + 6, NULL, 10);
	if (f)
		fclose(f);
	return kilobytes * 1024;
}

static void test_touch(int fd)
{
	long rss = resident();
	char *p = map_file(fd, SIZE, PROT_READ);
	if (!CHECK(p != MAP_FAILED, "16 MB of a file"))
		return;
	CHECK(resident() - rss < MB, "take no memory");
	CHECK(right(p + SIZE / 2 + 20, 100, SIZE / 2 + 20) && right(p, PAGE, 0) && right(p + SIZE - PAGE, PAGE, SIZE - PAGE),
	      "what is touched has been read");
	if (no_mmu()) // other kernels also map cached neighbors
		CHECK(resident() - rss < 2 * MB, "nothing else has");
	CHECK(right(p, SIZE, 0) && resident() - rss >= SIZE, "all of it is right");
	munmap(p, SIZE);
	CHECK(resident() - rss < MB, "and no longer takes memory");
	p = map_file(fd, SIZE, PROT_READ | PROT_WRITE);
	unsigned char seen[8];
	memset(p + MB + 8, 0x55, 8);
	CHECK(right(p + MB, 8, MB) && right(p + MB + 16, PAGE, MB + 16) && all_bytes(p + MB + 8, 8, 0x55),
	      "a write is the first touch");
	CHECK(pread(fd, seen, 8, MB + 8) == 8 && right(seen, 8, MB + 8), "and does not reach the file");
	munmap(p, SIZE);
	p = mmap(NULL, 8 * MB, PROT_READ, MAP_PRIVATE, fd, 4 * MB);
	CHECK(p != MAP_FAILED && right(p + 3 * MB, MB, 7 * MB), "from an offset on");
	munmap(p, 8 * MB);
}

/* Each access of the kernel is the first one to its page. */
static void test_kernel(int fd)
{
	char *p = map_file(fd, SIZE, PROT_READ | PROT_WRITE), *at = p, text[PAGE];
	int pipes[2], other = memfd_create("bytes", MFD_CLOEXEC);
	if (!CHECK(p != MAP_FAILED && pipe(pipes) == 0 && write(other, memset(text, 'x', PAGE), PAGE) == PAGE, "a mapping"))
		return;
#define NEXT (at += 128 * KB)
#define OFFSET ((size_t)(at - p))
	CHECK(pread(other, NEXT + 100, 200, 0) == 200 && right(at, 100, OFFSET) && all_bytes(at + 100, 200, 'x') &&
		      right(at + 300, PAGE, OFFSET + 300), "read");
	CHECK(write(pipes[1], NEXT, 100) == 100 && read(pipes[0], text, 100) == 100 && right(text, 100, OFFSET), "write");
	CHECK(pwrite(other, NEXT, 60 * KB, 0) == 60 * KB && pread(other, text, PAGE, 8 * KB) == PAGE &&
		      right(text, PAGE, OFFSET + 8 * KB), "write to a tmpfs");
	NEXT;
	CHECK(pwrite(fd, at, 60 * KB, (off_t)OFFSET) == 60 * KB && right(at, 60 * KB, OFFSET), "write to its own file");
	CHECK(pread(fd, NEXT, 60 * KB, 0) == 60 * KB && right(at, 60 * KB, 0), "read from its own file");
	struct iovec parts[2] = {{at + 128 * KB, 12}, {at + 256 * KB, 12}};
	CHECK(writev(pipes[1], parts, 2) == 24 && read(pipes[0], text, 24) == 24 && right(text, 12, OFFSET + 128 * KB) &&
		      right(text + 12, 12, OFFSET + 256 * KB), "writev");
	at += 256 * KB;
	struct iovec one = {NEXT, PAGE};
	CHECK(vmsplice(pipes[1], &one, 1, 0) == PAGE && read(pipes[0], text, PAGE) == PAGE && right(text, PAGE, OFFSET),
	      "vmsplice");
	struct iovec local = {text, 8}, remote = {NEXT, 8};
	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 8 && right(text, 8, OFFSET), "process_vm_readv");
	remote.iov_base = NEXT;
	CHECK(process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == 8 && !memcmp(at, text, 8) &&
		      right(at + 8, PAGE, OFFSET + 8), "process_vm_writev");
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	CHECK(pread(memory, text, 8, (off_t)NEXT) == 8 && right(text, 8, OFFSET), "/proc/self/mem");
	CHECK(pwrite(memory, "by file", 8, (off_t)NEXT) == 8 && !strcmp(at, "by file") && right(at + 8, PAGE, OFFSET + 8),
	      "and to write");
	close(memory);
	struct timespec soon = {0, 1000};
	NEXT;
	CHECK(syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, word_at(OFFSET), &soon) == -1 && errno == ETIMEDOUT, "futex");
	NEXT;
	CHECK(syscall(SYS_futex, at, FUTEX_WAIT, word_at(OFFSET) + 1, &soon) == -1 && errno == EAGAIN, "futex, other value");
	NEXT;
	CHECK(syscall(SYS_futex, text, FUTEX_WAKE_OP_PRIVATE, 1, 1, at, FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0)) >= 0 &&
		      *(int *)at == 7, "FUTEX_WAKE_OP");
	CHECK(clock_gettime(CLOCK_REALTIME, (struct timespec *)NEXT) == 0 && right(at + 16, PAGE, OFFSET + 16), "clock_gettime");
	CHECK(syscall(SYS_clock_getres, CLOCK_REALTIME, NEXT) == 0 && right(at + 16, PAGE, OFFSET + 16), "clock_getres");
	NEXT;
	CHECK(getcwd(at, PAGE) == at && *at == '/', "getcwd");
	CHECK(open(NEXT, O_RDONLY | O_CLOEXEC) == -1 && (errno == ENOENT || errno == ENAMETOOLONG), "a path");
	CHECK(poll((struct pollfd *)NEXT, 1, 0) >= 0 && right(at + 8, PAGE, OFFSET + 8), "poll");
	int direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (direct >= 0) {
		NEXT;
		CHECK(pwrite(direct, at, PAGE, (off_t)OFFSET) == PAGE && right(at, PAGE, OFFSET), "O_DIRECT");
		CHECK(pread(direct, NEXT, PAGE, 0) == PAGE && right(at, PAGE, 0) && right(at + PAGE, PAGE, OFFSET + PAGE),
		      "and to read");
		char *q = map_file(direct, SIZE, PROT_READ);
		CHECK(q != MAP_FAILED && right(q + 4 * MB, PAGE, 4 * MB), "a mapping of such a descriptor");
		munmap(q, SIZE);
		close(direct);
	}
	CHECK(sigaltstack(&(stack_t){.ss_sp = NEXT, .ss_size = 64 * KB}, NULL) == 0 && raise(SIGUSR1) == 0 &&
		      right(at, PAGE, OFFSET) && !right(at + 60 * KB, 4 * KB, OFFSET + 60 * KB), "a signal's frame");
	sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
	char *arguments[] = {"child", "child", NEXT, NULL};
	pid_t pid;
	at[20] = 0;
	CHECK(posix_spawn(&pid, SELF, NULL, NULL, arguments, environ) == 0 && wait_status(pid) == 0, "an argument of exec");
	close(other);
	close(pipes[0]);
	close(pipes[1]);
	munmap(p, SIZE);
}

static void on_usr1(int sig)
{
	volatile char frame[2000];
	memset((char *)frame, sig, sizeof frame);
}

static sigjmp_buf out;
static volatile int bus_code;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	bus_code = info->si_code;
	siglongjmp(out, 1);
}

/* The code of the SIGBUS that reading raises; 0: none. */
static int bus(const volatile char *at)
{
	if (!sigsetjmp(out, 1)) {
		(void)*at;
		return 0;
	}
	return bus_code;
}

static void test_shrinks(int fd)
{
	char *p = map_file(fd, SIZE, PROT_READ | PROT_WRITE), text[16];
	int pipes[2];
	if (!CHECK(p != MAP_FAILED && right(p + 12 * MB, PAGE, 12 * MB) && pipe(pipes) == 0, "a mapping"))
		return;
	CHECK(ftruncate(fd, 4 * MB + 100) == 0, "the file becomes smaller");
	if (no_mmu())
		CHECK(right(p + 12 * MB, PAGE, 12 * MB), "what has been read stays");
	CHECK(bus(p + 8 * MB) == BUS_ADRERR && bus(p + SIZE - 1) == BUS_ADRERR && bus(p + 4 * MB + PAGE) == BUS_ADRERR,
	      "pages that no longer exist are SIGBUS");
	CHECK(right(p + 4 * MB, 100, 4 * MB) && all_bytes(p + 4 * MB + 100, PAGE - 100, 0), "the last page ends in zeros");
	CHECK(write(pipes[1], p + 9 * MB, 10) == -1 && errno == EFAULT, "EFAULT for the kernel");
	CHECK(read(fd, p + 9 * MB, 10) <= 0 && pread(fd, p + 9 * MB, 10, 0) == -1 && errno == EFAULT, "also to write");
	CHECK(pwrite(fd, p + 4 * MB + PAGE - 6, 10, 0) <= 6 && pwrite(fd, p, 8, 0) == 8, "it gets what there is");
	CHECK(open(p + 9 * MB, O_RDONLY | O_CLOEXEC) == -1 && errno == EFAULT, "as of a path");
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	CHECK(pread(memory, text, 8, (off_t)(p + 10 * MB)) <= 0, "/proc/self/mem has nothing there");
	close(memory);
	pid_t child = fork();
	if (!child)
		_exit(bus(p + 10 * MB) != BUS_ADRERR || !right(p + 2 * MB, PAGE, 2 * MB));
	CHECK(exited_with(wait_status(child), 0), "the same for a child");
	CHECK(ftruncate(fd, SIZE) == 0 && bus(p + 8 * MB) == 0 && all_bytes(p + 8 * MB, PAGE, 0), "the file grows again");
	munmap(p, SIZE);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_replaced(int fd)
{
	char *p = map_file(fd, SIZE, PROT_READ | PROT_WRITE);
	if (!CHECK(p != MAP_FAILED && right(p + 2 * MB, MB, 2 * MB), "a mapping"))
		return;
	CHECK(mmap(p + 2 * MB, 2 * MB, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 10 * MB) == p + 2 * MB &&
		      mmap(p + 6 * MB, 2 * MB, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == p + 6 * MB, "others over it");
	CHECK(right(p + 2 * MB, 2 * MB, 10 * MB) && right(p + 6 * MB, 2 * MB, 0) && right(p + 4 * MB, 2 * MB, 4 * MB) &&
		      right(p + 8 * MB, 2 * MB, 8 * MB), "each has its own");
	CHECK(mmap(p + 11 * MB, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + 11 * MB &&
		      all_bytes(p + 11 * MB, MB, 0) && right(p + 12 * MB, PAGE, 12 * MB) && right(p + 11 * MB - PAGE, PAGE, 11 * MB - PAGE),
	      "zeros over it");
	memset(p + 13 * MB, 1, MB);
	CHECK(madvise(p + 13 * MB, MB, MADV_DONTNEED) == 0 && right(p + 13 * MB, MB, 13 * MB), "MADV_DONTNEED reads it again");
	CHECK(mprotect(p + 14 * MB, MB, PROT_NONE) == 0 && reading(p + 14 * MB + 5) == SEGV_ACCERR &&
		      mprotect(p + 14 * MB, MB, PROT_READ) == 0 && right(p + 14 * MB, MB, 14 * MB), "PROT_NONE, and back");
	CHECK(munmap(p, SIZE) == 0 && reading(p + 15 * MB + 128 * KB) == SEGV_MAPERR, "all of it goes");
}

static void test_fork(int fd)
{
	char *p = map_file(fd, SIZE, PROT_READ | PROT_WRITE), byte;
	int down[2], up[2];
	if (!CHECK(p != MAP_FAILED && pipe(down) == 0 && pipe(up) == 0, "a mapping to fork with"))
		return;
	p[100] = 'p';
	pid_t child = fork();
	if (!child) {
		int good = p[100] == 'p' && right(p + MB, PAGE, MB);
		memset(p + 2 * MB, 'c', MB);
		good = write(up[1], "", 1) == 1 && read(down[0], &byte, 1) == 1 && good;
		good = good && right(p + 3 * MB, MB, 3 * MB) && all_bytes(p + 2 * MB, MB, 'c') && p[100] == 'p';
		good = good && mmap(p + 5 * MB, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
		good = good && mmap(p + 7 * MB, MB, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED;
		good = good && all_bytes(p + 5 * MB, MB, 0) && right(p + 7 * MB, MB, 0) && right(p + 6 * MB, MB, 6 * MB);
		_exit(!good);
	}
	CHECK(read(up[0], &byte, 1) == 1 && right(p + 2 * MB, MB, 2 * MB) && right(p + MB, MB, MB), "a child touches first");
	memset(p + 3 * MB, 'q', MB);
	p[100] = 'q';
	CHECK(write(down[1], "", 1) == 1 && exited_with(wait_status(child), 0), "the child sees what is its own");
	CHECK(right(p + 5 * MB, MB, 5 * MB) && right(p + 7 * MB, MB, 7 * MB) && all_bytes(p + 3 * MB, MB, 'q'), "so does its parent");
	child = fork();
	if (!child)
		_exit(munmap(p, SIZE) != 0);
	CHECK(exited_with(wait_status(child), 0) && right(p + 9 * MB, MB, 9 * MB), "a child unmaps it");
	munmap(p, SIZE);
	p = map_file(fd, SIZE, PROT_READ);
	CHECK(right(p, MB, 0), "a mapping that cannot be written to");
	child = fork();
	if (!child) {
		int good = mprotect(p, 2 * MB, PROT_READ | PROT_WRITE) == 0 && memset(p, 'c', MB) && memset(p + MB, 'd', PAGE);
		good = write(up[1], "", 1) == 1 && read(down[0], &byte, 1) == 1 && good;
		_exit(!good || !all_bytes(p, MB, 'c') || !all_bytes(p + MB, PAGE, 'd'));
	}
	CHECK(read(up[0], &byte, 1) == 1 && right(p, 2 * MB, 0), "a child that may write there then writes to its own");
	pid_t next = fork();
	if (!next)
		_exit(mprotect(p, MB, PROT_READ | PROT_WRITE) || !right(p, MB, 0) || !memset(p, 'e', MB));
	CHECK(exited_with(wait_status(next), 0) && write(down[1], "", 1) == 1 && exited_with(wait_status(child), 0) &&
		      right(p, SIZE, 0), "and so does the next");
	munmap(p, SIZE);
	close(down[0]), close(down[1]), close(up[0]), close(up[1]);
}

static char *common;

static void *read_all(void *unused)
{
	(void)unused;
	for (int i = 0; i < 4 * (int)(SIZE / MB); i++)
		if (!right(common + i % (SIZE / MB) * MB + i * 1000, PAGE, i % (SIZE / MB) * MB + i * 1000))
			return "wrong";
	return NULL;
}

static void test_threads(int fd)
{
	enum { THREADS = 8 };
	pthread_t threads[THREADS];
	int wrong = 0, started = 0;
	common = map_file(fd, SIZE, PROT_READ);
	signal(SIGALRM, on_usr1);
	alarm_every_us(200);
	for (int i = 0; i < THREADS; i++)
		started += pthread_create(&threads[i], NULL, read_all, NULL) == 0;
	for (int i = 0; i < started; i++) {
		void *result = "";
		wrong += pthread_join(threads[i], &result) || result;
	}
	alarm_every_us(0);
	CHECK(started == THREADS && !wrong, "threads touch the same pages, and signals arrive");
	munmap(common, SIZE);
	unsigned seed = 1;
	int bad = 0;
	for (int i = 0; i < 60; i++) {
		pid_t child = fork();
		if (!child) {
			char *p = map_file(fd, SIZE, PROT_READ);
			for (size_t at = 0; at < SIZE; at += PAGE)
				if (!right(p + at, 64, at))
					_exit(1);
			_exit(0);
		}
		for (seed = seed * 1103515245 + 12345; seed % 64; seed /= 2)
			sched_yield();
		if (i % 3)
			kill(child, SIGKILL);
		int status = wait_status(child);
		bad += !killed_by(status, SIGKILL) && status != 0;
	}
	CHECK(!bad, "processes that are killed while they read");
}

/* Takes more memory than exists, by touching it directly or through the kernel; ends by a signal. */
static void eat(int fd, size_t size, int how)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char *p = map_file(fd, size, PROT_READ | PROT_WRITE);
	if (p == MAP_FAILED || (how == 2 && fork() < 0))
		_exit(errno); // the host's limit is used up
	for (size_t at = 0; how != 1 && at < size; at += PAGE)
		p[at] = 1;
	for (size_t at = 0; how == 1 && at < size; at += MB)
		if (read(zero, p + at, MB) != MB)
			pause();
	_exit(0);
}

static void test_eaters(int fd)
{
	const size_t size = 4096UL * MB;
	int large = open(path, O_RDWR | O_CLOEXEC);
	if (!CHECK(large >= 0 && ftruncate(large, size) == 0, "a file of 4 GB, with holes"))
		return;
	for (int i = 0; i < 6; i++) {
		pid_t child = fork();
		if (!child)
			eat(large, size, i % 3);
		int status = wait_status(child);
		CHECK(killed_by(status, SIGKILL) || exited_with(status, ENOMEM), "who touches more than there is ends");
		char *p = map_file(fd, SIZE, PROT_READ);
		CHECK(p != MAP_FAILED && right(p + MB, 4 * MB, MB), "and there is memory again");
		munmap(p, SIZE);
	}
	close(large);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "child"))
		return argc != 3 || strlen(argv[2]) > 20;
	if (argc > 1)
		directory = argv[1];
	signal(SIGUSR1, on_usr1);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_usr1, .sa_flags = SA_ONSTACK}, NULL);
	sigaction(SIGBUS, &(struct sigaction){.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO}, NULL);
	handle(0);
	int fd = make_file();
	if (CHECK(fd >= 0, "a file of 16 MB"))
		test_shrinks(fd); // first of all, because pages that are already memory are read at once
	unlink(path);
	close(fd);
	fd = make_file();
	if (CHECK(fd >= 0, "another one")) {
		test_touch(fd);
		test_kernel(fd);
		test_replaced(fd);
		test_fork(fd);
		test_threads(fd);
		if (no_mmu() && !strcmp(directory, "/root")) // on a host, this would take all memory
			test_eaters(fd);
	}
	unlink(path);
	close(fd);
	return tap_done();
}
