// SPDX-License-Identifier: Apache-2.0
// Shared mappings of files in the directory given as argument 1: the same bytes by mapping, read() and write(), in all
// processes; ends that move. And mappings without a file system: memfd_create, /dev/zero.
#define _GNU_SOURCE
#include "mapping.h"
#include "tap.h"
#include "util.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif
enum { SEAL_SEAL = 1, SEAL_SHRINK = 2, SEAL_GROW = 4, SEAL_WRITE = 8 };

static void test_coherence(void)
{
	char buffer[3 * PAGE], word[16] = "";
	int fd = new_file(0);
	for (int i = 0; i < (int)sizeof buffer; i++)
		buffer[i] = (char)(i % 251);
	CHECK(write(fd, buffer, sizeof buffer) == sizeof buffer, "a file of three pages, just written");
	char *a = map(fd, sizeof buffer, 0);
	if (!CHECK(a != MAP_FAILED, "is mapped"))
		return;
	CHECK(!memcmp(a, buffer, sizeof buffer), "the mapping has the bytes");
	CHECK(pwrite(fd, "written", 7, PAGE - 3) == 7 && !memcmp(a + PAGE - 3, "written", 7), "write() is seen in the mapping");
	memcpy(a + 2 * PAGE - 3, "stored", 6);
	CHECK(pread(fd, word, 6, 2 * PAGE - 3) == 6 && !memcmp(word, "stored", 6), "a store is seen by read()");
	char *b = map(fd, PAGE, PAGE), *c = map(fd, 2 * PAGE, PAGE), *d = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (CHECK(b != MAP_FAILED && c != MAP_FAILED && d != MAP_FAILED, "three more mappings that overlap")) {
		b[5] = 'b';
		c[PAGE + 5] = 'c';
		CHECK(a[PAGE + 5] == 'b' && c[5] == 'b' && d[PAGE + 5] == 'b' && a[2 * PAGE + 5] == 'c' && d[2 * PAGE + 5] == 'c',
		      "are one memory");
		munmap(a, 3 * PAGE);
		b[6] = 'B';
		CHECK(c[6] == 'B' && d[PAGE + 6] == 'B', "also without the first");
		munmap(b, PAGE);
		c[7] = 'C';
		CHECK(d[PAGE + 7] == 'C' && mremap(c, 2 * PAGE, PAGE, 0) == c && c[7] == 'C' && d[2 * PAGE + 5] == 'c',
		      "mremap makes one smaller, and only that one");
		munmap(c, PAGE);
		munmap(d, 3 * PAGE);
	}
	CHECK(pread(fd, word, 3, PAGE + 5) == 3 && word[0] == 'b' && word[1] == 'B', "the file has it all afterwards");
	a = map(fd, 3 * PAGE, 0);
	CHECK(a != MAP_FAILED && a[PAGE + 5] == 'b' && a[2 * PAGE + 5] == 'c', "so has a new mapping");
	int other = open(path, O_RDWR | O_CLOEXEC);
	CHECK(pwrite(other, "other", 5, 100) == 5 && !memcmp(a + 100, "other", 5), "another open file is the same file");
	unlink(path);
	a[0] = 'x';
	CHECK(pread(other, word, 1, 0) == 1 && word[0] == 'x', "a file without a name still is");
	close(other);
	close(fd);
	CHECK(a[0] == 'x' && touch(a + 1, 'y') == 0, "the mapping outlives the descriptors");
	munmap(a, 3 * PAGE);
}

static void test_ends(void)
{
	int fd = new_file(100);
	char *a = map(fd, 4 * PAGE, 0), byte;
	if (!CHECK(a != MAP_FAILED, "a mapping longer than its file"))
		return;
	CHECK(touch(a + 99, 'e') == 0 && touch(a + PAGE - 1, 'z') == 0, "the last page is all there");
	CHECK(touch(a + PAGE, -1) == SIGBUS && code_seen == BUS_ADRERR, "a page behind it: SIGBUS");
	CHECK(touch(a + 2 * PAGE, 1) == SIGBUS, "for a store, too");
	struct stat st;
	CHECK(fstat(fd, &st) == 0 && st.st_size == 100, "the file has not grown");
	CHECK(ftruncate(fd, 2 * PAGE) == 0 && touch(a + PAGE, -1) == 0 && a[PAGE] == 0, "it grows, and the page is there");
	CHECK(pread(fd, &byte, 1, PAGE + 6) == 1 && byte == 0, "as a hole");
	a[PAGE + 7] = 's';
	CHECK(pread(fd, &byte, 1, PAGE + 7) == 1 && byte == 's', "it can be written to");
	CHECK(touch(a + 2 * PAGE, -1) == SIGBUS, "the next one is still behind the end");
	CHECK(pwrite(fd, "w", 1, 3 * PAGE + 9) == 1 && touch(a + 3 * PAGE + 9, -1) == 0 && a[3 * PAGE + 9] == 'w' &&
		      touch(a + 2 * PAGE, -1) == 0 && a[2 * PAGE] == 0, "write() makes it longer, with a hole");
	CHECK(ftruncate(fd, PAGE + 8) == 0 && touch(a + 2 * PAGE, -1) == SIGBUS && touch(a + 3 * PAGE, 1) == SIGBUS,
	      "it shrinks: SIGBUS again");
	CHECK(touch(a + PAGE + 7, -1) == 0 && a[PAGE + 7] == 's', "what is left is left");
	CHECK(ftruncate(fd, 4 * PAGE) == 0 && touch(a + 3 * PAGE + 9, -1) == 0 && a[3 * PAGE + 9] == 0 && a[PAGE + 8] == 0,
	      "it grows once more: zeros");
	a[3 * PAGE] = 'n';
	CHECK(pread(fd, &byte, 1, 3 * PAGE) == 1 && byte == 'n', "which can be written to");
	CHECK(ftruncate(fd, 0) == 0 && touch(a, -1) == SIGBUS, "an empty file: SIGBUS everywhere");
	CHECK(munmap(a, 4 * PAGE) == 0, "it is unmapped");
	a = map(fd, PAGE, 0);
	CHECK(a != MAP_FAILED && touch(a, 1) == SIGBUS, "an empty file can be mapped");
	munmap(a, PAGE);
	drop(fd);
}

/* The kernel reads and writes a program's memory that is a mapping. */
static void test_kernel_access(void)
{
	int fd = new_file(4 * PAGE), ends[2];
	char *a = map(fd, 8 * PAGE, 0), byte = 0;
	if (pipe(ends) || a == MAP_FAILED)
		return;
	CHECK(write(ends[1], "through a pipe", 14) == 14 && read(ends[0], a + PAGE, 14) == 14 &&
		      !memcmp(a + PAGE, "through a pipe", 14), "read() into a page that nobody has written to");
	CHECK(pread(fd, &byte, 1, PAGE) == 1 && byte == 't', "the file has it");
	CHECK(write(ends[1], a + 2 * PAGE, 10) == 10 && read(ends[0], a, 10) == 10, "write() from one");
	CHECK(write(ends[1], a + 4 * PAGE, 10) == -1 && errno == EFAULT, "write() from behind the end: EFAULT");
	CHECK(write(ends[1], "xyz", 3) == 3 && read(ends[0], a + 5 * PAGE, 3) == -1 && errno == EFAULT,
	      "read() to there: EFAULT");
	CHECK(read(ends[0], a, 3) == 3, "and nothing was lost");
	CHECK(pwrite(fd, a + PAGE, 14, 3 * PAGE) == 14 && !memcmp(a + 3 * PAGE, "through a pipe", 14),
	      "from the mapping into the file that it is of");
	CHECK(pread(fd, a + 2 * PAGE, 14, PAGE) == 14 && !memcmp(a + 2 * PAGE, "through a pipe", 14), "and back");
	struct stat *st = (struct stat *)(void *)(a + 3 * PAGE + 64);
	CHECK(fstat(fd, st) == 0 && st->st_size == 4 * PAGE, "fstat() into it");
	close(ends[0]);
	close(ends[1]);
	munmap(a, 8 * PAGE);
	drop(fd);
}

/* Without an MMU the pages cannot be replaced. The file must not receive the contents that are mapped over it. */
static void test_fixed(void)
{
	int fd = new_file(4 * PAGE);
	char *a = map(fd, 4 * PAGE, 0), byte = 0;
	if (!CHECK(a != MAP_FAILED, "a file to map something over"))
		return;
	memset(a, 'F', 4 * PAGE);
	void *over = mmap(a + PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(over == a + PAGE || errno == ENOMEM, "MAP_FIXED over a shared mapping replaces it or says ENOMEM");
	if (over == a + PAGE)
		*(char *)over = 'x';
	over = mmap(a + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK(over == a + 2 * PAGE || errno == ENOMEM, "the same by a file");
	CHECK(pread(fd, &byte, 1, PAGE) == 1 && byte == 'F', "the file stays as it is");
	munmap(a, 4 * PAGE);
	drop(fd);
	char *place = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	CHECK(mmap(place, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED && errno == ENODEV,
	      "a file that cannot be mapped, at a fixed address: ENODEV");
	close(fd);
	munmap(place, PAGE);
}

static void test_rights(void)
{
	int fd = new_file(2 * PAGE);
	int reader = open(path, O_RDONLY | O_CLOEXEC), writer = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(map(reader, PAGE, 0) == MAP_FAILED && errno == EACCES, "PROT_WRITE of a read-only descriptor: EACCES");
	CHECK(map(writer, PAGE, 0) == MAP_FAILED && errno == EACCES, "a write-only descriptor: EACCES");
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0) == MAP_FAILED && errno == EACCES, "also MAP_PRIVATE");
	char *place = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mmap(place, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, writer, 0) == MAP_FAILED && errno == EACCES,
	      "and at a fixed address");
	munmap(place, PAGE);
	char *a = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, reader, 0);
	if (CHECK(a != MAP_FAILED, "a read-only mapping")) {
		CHECK(touch(a, 1) == SIGSEGV && a[0] == 0, "is one: SIGSEGV");
		CHECK(pwrite(fd, "1", 1, 0) == 1 && a[0] == '1' && touch(a, 1) == SIGSEGV, "also when write() was there");
		CHECK(mprotect(a, 2 * PAGE, RW) == -1 && errno == EACCES, "it cannot be made writable");
		munmap(a, 2 * PAGE);
	}
	a = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(touch(a, 1) == SIGSEGV && mprotect(a, 2 * PAGE, RW) == 0 && touch(a, 'w') == 0 && a[0] == 'w',
	      "that of a writable descriptor can");
	munmap(a, 2 * PAGE);
	close(reader);
	close(writer);
	drop(fd);
}

/* Regions of one file that are mapped one after the other as it grows: what SQLite does with its index. */
static void test_growing(void)
{
	enum { SIZE = 32 * 1024, REGIONS = 8 };
	int fd = new_file(0), good = 0;
	char *region[REGIONS], byte;
	for (int i = 0; i < REGIONS; i++) {
		if (ftruncate(fd, (i + 1) * SIZE))
			break;
		region[i] = map(fd, SIZE, i * SIZE);
		if (region[i] == MAP_FAILED)
			break;
		memset(region[i], 'a' + i, SIZE);
		good++;
	}
	CHECK(good == REGIONS, "a file grows and is mapped in parts");
	int wrong = 0;
	for (int i = 0; i < good; i++) {
		wrong += pread(fd, &byte, 1, i * SIZE + 77) != 1 || byte != 'a' + i || region[i][SIZE - 1] != 'a' + i;
		munmap(region[i], SIZE);
	}
	CHECK(wrong == 0, "each part has its bytes");
	char *all = map(fd, REGIONS * SIZE, 0);
	for (int i = 0; all != MAP_FAILED && i < good; i++)
		wrong += all[i * SIZE] != 'a' + i;
	CHECK(all != MAP_FAILED && wrong == 0, "and so has a mapping of all");
	if (all != MAP_FAILED)
		munmap(all, REGIONS * SIZE);
	drop(fd);
}

/* The other process: adds one to each of a hundred counters whenever it is its turn. */
static int be_partner(const char *file)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	volatile unsigned char *a = (unsigned char *)map(fd, 2 * PAGE, 0);
	if (a == MAP_FAILED)
		return 3;
	for (int turn = 1; turn < 200; turn += 2) {
		for (int64_t end = now_ns() + 20000000000; a[PAGE] != turn;) {
			if (now_ns() > end)
				return 4;
			sched_yield();
		}
		for (int i = 0; i < 100; i++)
			a[i]++;
		a[PAGE] = (unsigned char)(turn + 1);
	}
	return 42;
}

static void test_processes(void)
{
	int fd = new_file(2 * PAGE);
	volatile unsigned char *a = (unsigned char *)map(fd, 2 * PAGE, 0);
	pid_t child = start_role("partner", path);
	int late = 0;
	for (int turn = 0; turn < 200 && !late; turn += 2) {
		for (int i = 0; i < 100; i++)
			a[i]++;
		a[PAGE] = (unsigned char)(turn + 1);
		for (int64_t end = now_ns() + 20000000000; a[PAGE] != turn + 2 && !late; sched_yield())
			late = now_ns() > end;
	}
	CHECK(exited_with(wait_status(child), 42) && !late, "two processes take turns by a mapping");
	int wrong = 0;
	for (int i = 0; i < 100; i++)
		wrong += a[i] != 200;
	CHECK(wrong == 0, "and nothing of what they count is lost");
	munmap((void *)(uintptr_t)a, 2 * PAGE);
	drop(fd);
}

/* A mapping from before fork() is shared by parent and child. */
static void test_fork(void)
{
	enum { ROUNDS = 40 };
	int fd = new_file(4 * PAGE), good = 0, value = 0;
	volatile int *a = (int *)(void *)map(fd, 4 * PAGE, 0);
	for (int i = 0; i < ROUNDS; i++) {
		a[1024] = i;
		pid_t child = fork();
		if (child == 0) {
			int right = a[1024] == i;
			a[2048 + i] = i + 1;
			a[0]++;
			if (i % 4 == 0)
				munmap((void *)(uintptr_t)a, 4 * PAGE);
			_exit(right ? 0 : 3);
		}
		good += exited_with(wait_status(child), 0) && a[2048 + i] == i + 1 && a[0] == i + 1;
	}
	CHECK(good == ROUNDS, "forty children store in a mapping of their parent, and some unmap it");
	CHECK(pread(fd, &value, sizeof value, 0) == sizeof value && value == ROUNDS, "the file has what they stored");
	munmap((void *)(uintptr_t)a, 4 * PAGE);
	drop(fd);
}

static void test_memfd(void)
{
	int fd = (int)syscall(SYS_memfd_create, "test", 3 /* CLOEXEC, ALLOW_SEALING */);
	char *a, byte = 0;
	if (!CHECK(fd >= 0 && ftruncate(fd, 3 * PAGE) == 0, "memfd_create"))
		return;
	a = map(fd, 3 * PAGE, 0);
	CHECK(a != MAP_FAILED && touch(a + PAGE, 'm') == 0 && pread(fd, &byte, 1, PAGE) == 1 && byte == 'm', "is mapped");
	munmap(a, 3 * PAGE);
	CHECK(pread(fd, &byte, 1, PAGE) == 1 && byte == 'm', "and keeps its contents");
	CHECK(fcntl(fd, F_GET_SEALS) == 0 && fcntl(fd, F_ADD_SEALS, SEAL_SHRINK | SEAL_GROW) == 0 &&
		      fcntl(fd, F_GET_SEALS) == (SEAL_SHRINK | SEAL_GROW), "seals");
	CHECK(ftruncate(fd, PAGE) == -1 && errno == EPERM && ftruncate(fd, 4 * PAGE) == -1 && errno == EPERM &&
		      pwrite(fd, "x", 1, 3 * PAGE) == -1 && errno == EPERM, "keep the size");
	a = map(fd, PAGE, 0);
	CHECK(fcntl(fd, F_ADD_SEALS, SEAL_WRITE) == -1 && errno == EBUSY, "SEAL_WRITE while it is mapped: EBUSY");
	munmap(a, PAGE);
	CHECK(fcntl(fd, F_ADD_SEALS, SEAL_WRITE | SEAL_SEAL) == 0 && pwrite(fd, "x", 1, 0) == -1 && errno == EPERM &&
		      map(fd, PAGE, 0) == MAP_FAILED && errno == EPERM, "and afterwards nobody writes");
	a = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(a != MAP_FAILED && mprotect(a, PAGE, RW) == -1, "but can read");
	CHECK(fcntl(fd, F_ADD_SEALS, SEAL_WRITE) == -1 && errno == EPERM, "no seal after the last");
	close(fd);
}

static void test_zero(void)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	char *a = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0), *b = map(fd, 2 * PAGE, 0);
	CHECK(a != MAP_FAILED && a[0] == 0 && a[2 * PAGE - 1] == 0 && touch(a, 1) == 0, "a private mapping of /dev/zero");
	CHECK(b != MAP_FAILED && b[0] == 0 && b[2 * PAGE - 1] == 0 && touch(b, 1) == 0, "a shared one");
	close(fd);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "partner"))
		return be_partner(argv[2]);
	if (argc > 1)
		directory = argv[1];
	catch_faults();
	test_coherence();
	test_ends();
	test_kernel_access();
	test_fixed();
	test_rights();
	test_growing();
	test_processes();
	test_fork();
	test_memfd();
	test_zero();
	return tap_done();
}
