// SPDX-License-Identifier: Apache-2.0
// Mappings as large as the free memory, their growth, their limits, and the kernel's figures for a process's size.
// "large eat" takes all memory that it gets, prints a line and waits; "large map MB" needs one mapping.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <sys/mman.h>
#include <sys/resource.h>

enum { PAGE = 4096, MB = 1024 * 1024 };

static char *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long free_bytes(void)
{
	return number_after("/proc/meminfo", "MemFree:") << 10;
}

static long status_bytes(const char *name)
{
	return number_after("/proc/self/status", name) << 10;
}

/* Fill with numbers, so that a page in the wrong place is noticed. */
static void number_pages(char *at, size_t from, size_t to)
{
	for (size_t n = from; n < to; n += PAGE)
		*(size_t *)(at + n) = n + 1;
}

static int numbered(const char *at, size_t size)
{
	for (size_t n = 0; n < size; n += PAGE)
		if (*(const size_t *)(at + n) != n + 1)
			return 0;
	return 1;
}

static void test_largest(void)
{
	size_t size = free_bytes() / 4 * 3 / PAGE * PAGE;
	char *p = map(size);
	if (!CHECK(p != MAP_FAILED, "one mapping takes three quarters of the free memory"))
		return;
	int zero = 1;
	for (size_t n = 0; n < size; n += PAGE)
		zero &= !p[n];
	number_pages(p, 0, size);
	CHECK(zero && numbered(p, size), "it is zero, and holds what is written to it");
	munmap(p, size);
	errno = 0;
	CHECK(map(free_bytes() + 64L * MB) == MAP_FAILED && errno == ENOMEM, "more than there is: ENOMEM");
}

static int by_address(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;
	return (*x > *y) - (*x < *y);
}

/* Free blocks side by side are one stretch, however they are aligned. */
static void test_neighbors(void)
{
	enum { MOST = 4096, RUN = 5 };
	static char *blocks[MOST];
	int count = 0, found = -1, run = 1;
	while (count < MOST && (blocks[count] = map(MB)) != MAP_FAILED)
		count++;
	CHECK(count == MOST || errno == ENOMEM, "memory that is used up gives ENOMEM, and kills nobody");
	qsort(blocks, count, sizeof *blocks, by_address);
	for (int i = 1; i < count && found < 0; i++) {
		run = blocks[i] == blocks[i - 1] + MB ? run + 1 : 1;
		/* a start that is not aligned to a power of two */
		if (run >= RUN + 1 && (uintptr_t)blocks[i - RUN + 1] % (2 * MB))
			found = i - RUN + 1;
	}
	if (CHECK(found >= 0, "neighbors")) {
		for (int i = found; i < found + RUN; i++)
			munmap(blocks[i], MB);
		char *p = map(RUN * MB);
		CHECK(p != MAP_FAILED, "five neighbors that are freed make room for one mapping");
		if (p != MAP_FAILED)
			munmap(p, RUN * MB);
	}
	for (int i = 0; i < count; i++)
		if (found < 0 || i < found || i >= found + RUN)
			munmap(blocks[i], MB);
}

static void test_growth(void)
{
	enum { STEP = 64 * 1024, LAST = 32 * MB };
	size_t size = STEP;
	int moves = 0;
	char *p = map(size), *wall = NULL;
	number_pages(p, 0, size);
	while (size < LAST) {
		char *q = mremap(p, size, size + STEP, MREMAP_MAYMOVE);
		if (q == MAP_FAILED)
			break;
		moves += q != p;
		p = q;
		number_pages(p, size, size + STEP);
		size += STEP;
		/* sometimes with another mapping behind it */
		if (size % (4 * MB) == 0 && !wall)
			wall = map(STEP);
	}
	CHECK(size == LAST && numbered(p, size), "a mapping grows in 512 steps and keeps its contents");
	CHECK(moves < 20, "and is rarely moved");
	long before = free_bytes();
	CHECK(mremap(p, size, MB, 0) == p && numbered(p, MB), "it shrinks");
	CHECK(free_bytes() - before > LAST / 2, "which frees memory");
	CHECK(mremap(p, MB, 2 * MB, MREMAP_MAYMOVE) != MAP_FAILED, "and grows again");
	size_t most = 1UL << 40;
	CHECK(mremap(p, 2 * MB, most, MREMAP_MAYMOVE) == MAP_FAILED && errno == ENOMEM, "to a terabyte: ENOMEM");
}

/* A growing mapping of a process with a forked relative. */
static void test_growth_in_family(void)
{
	size_t size = 2 * MB;
	char *p = map(size);
	int go[2];
	number_pages(p, 0, size);
	if (p == MAP_FAILED || pipe(go))
		return;
	pid_t child = fork();
	if (!child) {
		char byte;
		close(go[1]);
		ssize_t n = read(go[0], &byte, 1);
		_exit(n == 0 && numbered(p, size) ? 0 : 1);
	}
	char *q = mremap(p, size, 2 * size, MREMAP_MAYMOVE);
	if (q == MAP_FAILED) { // allocators copy then
		CHECK(errno == ENOMEM, "what a relative has too cannot grow");
		q = p;
	}
	memset(q, 0xee, size);
	close(go[1]);
	int status = -1;
	waitpid(child, &status, 0);
	CHECK(status == 0, "a child sees what was there when it was born");
	q = mremap(q, size, 2 * size, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && q[0] == (char)0xee && q[size] == 0, "and after its end the mapping grows");
}

static void test_sizes(void)
{
	long rss = status_bytes("VmRSS:"), size = status_bytes("VmSize:");
	char *p = map(24 * MB);
	if (p == MAP_FAILED)
		return;
	memset(p, 1, 24 * MB);
	CHECK(status_bytes("VmRSS:") - rss >= 24 * MB && status_bytes("VmSize:") - size >= 24 * MB,
	      "a mapping counts in VmRSS and VmSize");
	munmap(p, 24 * MB);
	CHECK(status_bytes("VmRSS:") <= rss && status_bytes("VmSize:") <= size, "and no more when it is gone");
	CHECK(status_bytes("VmHWM:") >= 24 * MB && status_bytes("VmPeak:") >= 24 * MB, "the peaks stay");
	struct rusage usage;
	CHECK(getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss >= 24 * 1024, "ru_maxrss is the peak");
	pid_t child = fork();
	if (!child) {
		p = map(40 * MB);
		_exit(p == MAP_FAILED);
	}
	int status = -1;
	CHECK(waitpid(child, &status, 0) == child && status == 0 && getrusage(RUSAGE_CHILDREN, &usage) == 0 &&
		      usage.ru_maxrss >= 40 * 1024,
	      "that of a child as well");
}

static void test_limits(void)
{
	const int which[] = {RLIMIT_AS, RLIMIT_DATA};
	for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
		struct rlimit old, limit;
		getrlimit(which[i], &old);
		limit = old;
		limit.rlim_cur = status_bytes("VmSize:") + 8 * MB;
		setrlimit(which[i], &limit);
		char *p = map(4 * MB), *q = map(16 * MB);
		int refused = q == MAP_FAILED && errno == ENOMEM;
		CHECK(p != MAP_FAILED && refused, i ? "RLIMIT_DATA limits mappings" : "RLIMIT_AS limits mappings");
		q = mremap(p, 4 * MB, 16 * MB, MREMAP_MAYMOVE);
		CHECK(q == MAP_FAILED && errno == ENOMEM, "and their growth");
		munmap(p, 4 * MB);
		setrlimit(which[i], &old);
		p = map(16 * MB);
		CHECK(p != MAP_FAILED, "without it there is room");
		munmap(p, 16 * MB);
	}
}

static _Noreturn void eat(void)
{
	size_t eaten = 0;
	for (char *p; (p = malloc(PAGE)); eaten += PAGE)
		memset(p, 1, PAGE);
	tap_write(1, "eaten %zu MB\n", eaten / MB);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "eat"))
		eat();
	if (argc == 3 && !strcmp(argv[1], "map"))
		return map(strtoul(argv[2], NULL, 10) * MB) == MAP_FAILED;
	test_largest();
	test_neighbors();
	test_growth();
	test_growth_in_family();
	test_sizes();
	test_limits();
	return tap_done();
}
