// SPDX-License-Identifier: Apache-2.0
// Shared mappings of files at addresses that programs choose: over own memory they are the page cache; where reservations
// and linked programs are, a copy of what nobody can write to.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <fcntl.h>
#include <sys/shm.h>

#define LOW ((char *)0x50000000)

enum { RW = PROT_READ | PROT_WRITE, FIXED = MAP_SHARED | MAP_FIXED };

static void fill(int fd, int pages)
{
	char page[PAGE];
	for (int i = 0; i < pages; i++) {
		memset(page, 'a' + i, PAGE);
		pwrite(fd, page, PAGE, (off_t)i * PAGE);
	}
}

static int letters(const char *p, int first, int pages)
{
	int good = 1;
	for (int i = 0; i < pages; i++)
		good = good && all_bytes(p + i * PAGE, PAGE, 'a' + first + i);
	return good;
}

/* The page cache moves to the middle of a mapping. */
static void test_over(const char *path)
{
	tap_note("%s", path ? path : "memfd");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : memfd_create("shared", MFD_CLOEXEC);
	char *p = map(16 * PAGE, RW), byte = 0;
	fill(fd, 8);
	memset(p, 1, 16 * PAGE);
	if (!CHECK(mmap(p + 4 * PAGE, 4 * PAGE, RW, FIXED, fd, 2 * PAGE) == p + 4 * PAGE, "over own memory"))
		return;
	CHECK(letters(p + 4 * PAGE, 2, 4) && all_bytes(p, 4 * PAGE, 1) && all_bytes(p + 8 * PAGE, 8 * PAGE, 1),
	      "it is the file, and around it is what was there");
	p[5 * PAGE] = 'X';
	CHECK(pread(fd, &byte, 1, 3 * PAGE) == 1 && byte == 'X', "the file has what is stored");
	CHECK(pwrite(fd, "Y", 1, 4 * PAGE) == 1 && p[6 * PAGE] == 'Y', "and the mapping what is written");
	char *q = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 3 * PAGE);
	CHECK(q != MAP_FAILED && *q == 'X' && (q[PAGE] = 'Z') && p[6 * PAGE] == 'Z', "a second mapping shows the same");
	munmap(q, 2 * PAGE);
	pid_t pid = fork();
	if (pid == 0) {
		p[4 * PAGE] = 'C';
		p[0] = 2;
		_exit(p[6 * PAGE] == 'Z' ? 0 : 1);
	}
	CHECK(exited_with(wait_status(pid), 0) && p[4 * PAGE] == 'C' && p[0] == 1, "a child shares it, and nothing else");
	CHECK(mmap(p + 4 * PAGE, 4 * PAGE, RW, FIXED, fd, 2 * PAGE) == p + 4 * PAGE && p[4 * PAGE] == 'C', "the same again");
	CHECK(msync(p + 4 * PAGE, 4 * PAGE, MS_SYNC) == 0 && munmap(p + 4 * PAGE, 4 * PAGE) == 0 &&
		      (no_mmu() || reading(p + 4 * PAGE) == SEGV_MAPERR) && msync(p + 4 * PAGE, PAGE, MS_SYNC) == -1 &&
		      all_bytes(p + 8 * PAGE, 8 * PAGE, 1), "unmapped once, it is gone");
	CHECK(pread(fd, &byte, 1, 2 * PAGE) == 1 && byte == 'C', "the file stays");
	munmap(p, 4 * PAGE);
	munmap(p + 8 * PAGE, 8 * PAGE);
	close(fd);
	if (path)
		unlink(path);
}

/* A part of a file that is mapped elsewhere has an address already; a host has several. */
static void test_elsewhere(void)
{
	int fd = memfd_create("shared", MFD_CLOEXEC);
	char *p = map(8 * PAGE, RW);
	fill(fd, 4);
	char *first = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
	char *q = mmap(p + 2 * PAGE, 2 * PAGE, RW, FIXED, fd, PAGE);
	CHECK(letters(first, 0, 4) && (no_mmu() ? q == MAP_FAILED && errno == ENOMEM : letters(q, 1, 2)),
	      "what is mapped at another address: ENOMEM in a VM");
	CHECK(munmap(first, 4 * PAGE) == 0, "it is unmapped");
	q = mmap(p + 4 * PAGE, 2 * PAGE, RW, FIXED, fd, PAGE);
	CHECK(q == p + 4 * PAGE && letters(q, 1, 2), "and can be mapped here");
	munmap(p, 2 * PAGE);
	munmap(p + 2 * PAGE, 2 * PAGE);
	munmap(p + 4 * PAGE, 2 * PAGE);
	munmap(p + 6 * PAGE, 2 * PAGE);
	close(fd);
}

static void test_copies(char *base, const char *name)
{
	static const char path[] = "/tmp/constant";
	tap_note("%s", name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), only = open(path, O_RDONLY | O_CLOEXEC);
	fill(fd, 8);
	ftruncate(fd, 7 * PAGE + 100);
	char *q = mmap(base, 4 * PAGE, PROT_READ, FIXED, only, PAGE);
	CHECK(no_mmu() ? q == MAP_FAILED && errno == ENOMEM : q == base, "a file that is open for writing: ENOMEM in a VM");
	munmap(base, 4 * PAGE);
	close(fd);
	CHECK(mmap(base, PAGE, RW, FIXED, only, 0) == MAP_FAILED && errno == EACCES, "PROT_WRITE without the right: EACCES");
	char *p = mmap(base, 2 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	q = mmap(base + MB, 8 * PAGE, PROT_READ, FIXED, only, 0);
	CHECK(p == base && q == base + MB && letters(q, 0, 7) && q[7 * PAGE] == 'h' && !q[7 * PAGE + 100],
	      "a file that nobody writes to, over a reservation");
	CHECK(mprotect(q, PAGE, PROT_READ | PROT_EXEC) == 0 && letters(q, 0, 7), "which can be run");
	int status = mprotect(q, PAGE, RW);
	CHECK((status == -1 && errno == EACCES) || base == LOW, "but not written: EACCES");
	pid_t pid = fork();
	if (pid == 0)
		_exit(letters(q, 0, 7) ? 0 : 1);
	CHECK(exited_with(wait_status(pid), 0), "a child sees it, too");
	CHECK(mmap(q + PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == q + PAGE && !q[PAGE] &&
		      (q[PAGE] = 1) && mprotect(q + PAGE, PAGE, RW) == 0 && letters(q + 2 * PAGE, 2, 5), "a part is replaced");
	munmap(base, 2 * MB);
	CHECK(mmap(base, 2 * PAGE, PROT_READ, FIXED, only, 3 * PAGE) == base && letters(base, 3, 2), "and where nothing is");
	munmap(base, 2 * PAGE);
	CHECK(mmap(base + 1, PAGE, PROT_READ, FIXED, only, 0) == MAP_FAILED && errno == EINVAL &&
		      mmap(base, 0, PROT_READ, FIXED, only, 0) == MAP_FAILED && errno == EINVAL &&
		      mmap(base, -PAGE, PROT_READ, FIXED, only, 0) == MAP_FAILED && (errno == ENOMEM || errno == EOVERFLOW),
	      "wrong addresses and lengths");
	close(only);
	unlink(path);
}

/* What cannot become shared stays as it is, or is unmapped. */
static void test_refused(void)
{
	int fd = memfd_create("shared", MFD_CLOEXEC), fds[2];
	fill(fd, 4);
	char *p = map(8 * PAGE, RW), stack[64];
	memset(p, 3, 8 * PAGE);
	memset(stack, 4, sizeof stack);
	CHECK(pipe(fds) == 0 && mmap(p, PAGE, PROT_READ, FIXED, fds[0], 0) == MAP_FAILED && (errno == ENODEV || errno == EACCES) &&
		      mmap(p, PAGE, PROT_READ, FIXED, 999, 0) == MAP_FAILED && errno == EBADF && all_bytes(p, 8 * PAGE, 3),
	      "a pipe, and no file at all");
	if (!no_mmu())
		return;
	int id = shmget(IPC_PRIVATE, 2 * PAGE, IPC_CREAT | 0600);
	CHECK(id >= 0 && shmat(id, p, 0) == (void *)-1 && shmat(id, p, SHM_REMAP) == (void *)-1 &&
		      shmat(id, (void *)0x60000000, SHM_REMAP) == (void *)-1 &&
		      mmap(p, PAGE, RW, FIXED | 0x40000000 | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && all_bytes(p, 8 * PAGE, 3),
	      "System V shared memory");
	shmctl(id, IPC_RMID, NULL);
	pid_t pid = fork();
	if (pid == 0)
		_exit(mmap(p, PAGE, RW, FIXED, fd, 0) == MAP_FAILED && errno == ENOMEM && all_bytes(p, 8 * PAGE, 3) ? 0 : 1);
	CHECK(exited_with(wait_status(pid), 0) && all_bytes(p, 8 * PAGE, 3), "what relatives have: ENOMEM");
	char *const nobodys[] = {(char *)0x60000000, (char *)((uintptr_t)stack & -PAGE), (char *)PAGE,
				 (char *)(1UL << 46), (char *)-(2UL * MB)};
	int good = 1;
	for (size_t i = 0; i < ARRAY_SIZE(nobodys); i++)
		good = good && mmap(nobodys[i], PAGE, RW, FIXED, fd, 0) == MAP_FAILED && errno == ENOMEM;
	CHECK(good && all_bytes(stack, sizeof stack, 4), "addresses of the kernel, of a stack and of nobody: ENOMEM");
	munmap(p, 8 * PAGE);
	close(fd);
}

int main(void)
{
	handle(0);
	test_refused();
	test_over(NULL);
	test_over("/tmp/shared");
	test_over("/root/shared");
	test_elsewhere();
	test_copies(LOW, "below the kernel");
	char *window = mmap(NULL, 16 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	munmap(window, 16 * MB);
	test_copies(window + MB, "where reservations are");
	return tap_done();
}
