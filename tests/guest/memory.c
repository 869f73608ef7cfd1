// SPDX-License-Identifier: Apache-2.0
// mmap and its relatives as libcs, loaders and JIT compilers use them, malloc, deep recursion.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { KB = 1024, MB = 1024 * 1024, PAGE = 4096 };

static void *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int all_bytes(const void *at, size_t size, unsigned char value)
{
	const unsigned char *p = at;
	for (size_t i = 0; i < size; i++)
		if (p[i] != value)
			return 0;
	return 1;
}

static void test_anonymous(void)
{
	static const size_t sizes[] = {1, PAGE, 5 * PAGE, 100 * KB, MB, 8 * MB, 24 * MB};
	int good = 0;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		char *p = map(sizes[i]);
		if (p == MAP_FAILED)
			continue;
		good += all_bytes(p, sizes[i], 0);
		memset(p, 0xee, sizes[i]);
		munmap(p, sizes[i]);
	}
	CHECK(good == (int)ARRAY_SIZE(sizes), "anonymous mappings from 1 byte to 24 MB, all zero");
	good = 0;
	for (int i = 0; i < 200; i++) {
		char *p = map(300 * KB);
		if (p != MAP_FAILED && all_bytes(p, 300 * KB, 0))
			good++;
		memset(p, 0xdd, 300 * KB);
		munmap(p, 300 * KB);
	}
	CHECK(good == 200, "memory that was used before comes back as zeros, 200 times");
	CHECK(map(1UL << 46) == MAP_FAILED && errno == ENOMEM, "64 TB: ENOMEM");
	CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL, "0 bytes: EINVAL");
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF, "no such descriptor: EBADF");

	char *shared = mmap(NULL, 64 * KB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (CHECK(shared != MAP_FAILED, "a shared anonymous mapping")) {
		CHECK(all_bytes(shared, 64 * KB, 0), "is zero");
		shared[0] = 7;
		munmap(shared, 64 * KB);
	}
}

static void test_fixed(void)
{
	char *p = map(16 * PAGE);
	if (p == MAP_FAILED)
		return;
	memset(p, 0x11, 16 * PAGE);
	char *q = mmap(p + 4 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(q == p + 4 * PAGE, "MAP_FIXED inside an own mapping");
	CHECK(all_bytes(p, 4 * PAGE, 0x11) && all_bytes(p + 4 * PAGE, 2 * PAGE, 0) && all_bytes(p + 6 * PAGE, 10 * PAGE, 0x11),
	      "replaces just that part by zeros");
	int fd = open(SELF, O_RDONLY | O_CLOEXEC);
	char head[PAGE];
	ssize_t n = pread(fd, head, sizeof head, PAGE);
	q = mmap(p + 8 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, PAGE);
	CHECK(q == p + 8 * PAGE && n > 0 && !memcmp(q, head, n), "MAP_FIXED of a file, as the dynamic loader does it");
	close(fd);
	CHECK(munmap(p, 16 * PAGE) == 0, "all is unmapped together");
}

static void test_partial(void)
{
	char *p = map(8 * PAGE);
	memset(p, 0x22, 8 * PAGE);
	CHECK(munmap(p + 6 * PAGE, 2 * PAGE) == 0 && all_bytes(p, 6 * PAGE, 0x22), "the end is unmapped");
	CHECK(munmap(p, PAGE) == 0 && all_bytes(p + PAGE, 5 * PAGE, 0x22), "the beginning is unmapped");
	CHECK(munmap(p + 3 * PAGE, PAGE) == 0 && all_bytes(p + PAGE, 2 * PAGE, 0x22) && all_bytes(p + 4 * PAGE, 2 * PAGE, 0x22),
	      "a page in the middle is unmapped");
	munmap(p + PAGE, 2 * PAGE);
	munmap(p + 4 * PAGE, 2 * PAGE);
	CHECK(munmap(p + 1, PAGE) == -1 && errno == EINVAL, "an odd address: EINVAL");

	// How allocators get an aligned block: map too much, unmap both ends.
	char *raw = map(8 * MB), *aligned = (char *)(((uintptr_t)raw + 4 * MB - 1) & ~(uintptr_t)(4 * MB - 1));
	int trimmed = raw != MAP_FAILED;
	if (aligned > raw)
		trimmed &= munmap(raw, aligned - raw) == 0;
	trimmed &= munmap(aligned + 4 * MB, raw + 8 * MB - (aligned + 4 * MB)) == 0;
	memset(aligned, 0x33, 4 * MB);
	CHECK(trimmed && munmap(aligned, 4 * MB) == 0, "an aligned block cut out of a larger one");
}

static void test_remap(void)
{
	char *p = map(4 * PAGE);
	memset(p, 0x44, 4 * PAGE);
	char *q = mremap(p, 4 * PAGE, 2 * PAGE, 0);
	CHECK(q == p && all_bytes(q, 2 * PAGE, 0x44), "mremap makes a mapping smaller");
	q = mremap(p, 2 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
	if (q == MAP_FAILED) // without an MMU a block cannot move; every allocator then copies
		CHECK(errno == ENOMEM || errno == EINVAL, "mremap to much more: refused with an error");
	else
		CHECK(all_bytes(q, 2 * PAGE, 0x44) && all_bytes(q + 2 * PAGE, 398 * PAGE, 0), "mremap to much more");
	munmap(q == MAP_FAILED ? p : q, q == MAP_FAILED ? 2 * PAGE : 400 * PAGE);
	CHECK(mremap((void *)0x1000, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED, "mremap of nothing fails");
}

static void test_protection(void)
{
	char *p = map(4 * PAGE);
	memset(p, 0x55, 4 * PAGE);
	CHECK(mprotect(p, 4 * PAGE, PROT_READ) == 0 && all_bytes(p, 4 * PAGE, 0x55), "mprotect to read-only succeeds");
	CHECK(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE) == 0 && (p[0] = 1), "and back");
	CHECK(mprotect(p, PAGE, PROT_NONE) == 0 && mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0, "PROT_NONE and back");
	CHECK(syscall(SYS_mprotect, p + 1, PAGE, PROT_READ) == -1 && errno == EINVAL, "an odd address: EINVAL");
	CHECK(mprotect((void *)0x100000000000, PAGE, PROT_READ) == -1 && errno == ENOMEM, "nothing mapped there: ENOMEM");
	munmap(p, 4 * PAGE);

	static const unsigned char code[] = {0x8d, 0x47, 0x05, 0xc3}; // lea 5(%rdi), %eax; ret
	p = map(PAGE);
	memcpy(p, code, sizeof code);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0 && ((int (*)(int))p)(37) == 42, "generated code runs after mprotect");
	munmap(p, PAGE);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(p, code, sizeof code);
	CHECK(((int (*)(int))p)(1) == 6, "or from a mapping made executable at once");
	munmap(p, PAGE);
	// A big reservation without access, of which parts are opened: how V8 and the Go runtime begin.
	p = mmap(NULL, 16 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(p != MAP_FAILED && mprotect(p + MB, MB, PROT_READ | PROT_WRITE) == 0 && all_bytes(p + MB, MB, 0) &&
		      memset(p + MB, 1, MB), "part of a PROT_NONE reservation is opened");
	munmap(p, 16 * MB);
}

static void test_advice(void)
{
	char *p = map(64 * PAGE);
	memset(p, 0x66, 64 * PAGE);
	CHECK(madvise(p, 64 * PAGE, MADV_WILLNEED) == 0 || errno == ENOSYS, "MADV_WILLNEED: works or is absent");
	int result = madvise(p, 64 * PAGE, MADV_DONTNEED);
	CHECK(result == -1 || all_bytes(p, 64 * PAGE, 0), "MADV_DONTNEED: fails, or the pages are zero afterwards");
	int locked = mlock(p, PAGE);
	CHECK((locked == 0 || errno == ENOSYS || errno == EPERM || errno == ENOMEM) && msync(p, PAGE, MS_ASYNC) <= 0,
	      "mlock and msync do no harm");
	munmap(p, 64 * PAGE);
}

static void test_malloc(void)
{
	enum { BLOCKS = 2000 };
	static unsigned char *blocks[BLOCKS];
	static size_t sizes[BLOCKS];
	unsigned seed = 1;
	long wrong = 0;
	for (int round = 0; round < 60000; round++) {
		seed = seed * 1664525 + 1013904223;
		int i = (seed >> 8) % BLOCKS;
		if (blocks[i]) {
			wrong += blocks[i][0] != (unsigned char)i || blocks[i][sizes[i] - 1] != (unsigned char)i;
			free(blocks[i]);
			blocks[i] = NULL;
		} else {
			sizes[i] = 1 + (seed >> 12) % (round % 50 ? 2000 : 200000);
			blocks[i] = malloc(sizes[i]);
			if (!blocks[i]) {
				wrong++;
				continue;
			}
			memset(blocks[i], i, sizes[i]);
		}
	}
	for (int i = 0; i < BLOCKS; i++)
		free(blocks[i]);
	CHECK(wrong == 0, "60000 turns of malloc and free keep their contents");
	char *p = malloc(100);
	memset(p, 'r', 100);
	for (size_t size = 100; p && size < 20 * MB; size *= 2)
		p = realloc(p, size);
	CHECK(p && all_bytes(p, 100, 'r'), "realloc up to 12 MB");
	free(p);
	void *aligned = NULL;
	CHECK(posix_memalign(&aligned, MB, 3 * MB) == 0 && (uintptr_t)aligned % MB == 0, "posix_memalign");
	free(aligned);
	CHECK(malloc(1UL << 45) == NULL && errno == ENOMEM, "32 TB: NULL");
}

/* Each level keeps 128 bytes alive; the sum proves that no level was overwritten. */
__attribute__((noinline)) static long recurse(int depth)
{
	volatile long here[12];
	for (int i = 0; i < 12; i++)
		here[i] = depth + i;
	long sum = depth ? recurse(depth - 1) : 0;
	for (int i = 0; i < 12; i++)
		if (here[i] != depth + i)
			return -1000000000;
	return sum + 1;
}

static void *recurse_in_thread(void *depth)
{
	return (void *)recurse((int)(long)depth);
}

static void test_stack(void)
{
	CHECK(recurse(1200) == 1201, "200 KB of recursion on the main stack");
	pthread_attr_t attributes;
	pthread_t t;
	void *result = NULL;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 4 * MB);
	CHECK(pthread_create(&t, &attributes, recurse_in_thread, (void *)20000L) == 0 && pthread_join(t, &result) == 0 &&
		      (long)result == 20001, "3 MB of recursion in a thread with a stack of 4 MB");
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur > 0, "RLIMIT_STACK can be asked for");
}

static void *map_and_unmap(void *seed)
{
	unsigned x = (unsigned)(long)seed;
	long wrong = 0;
	for (int i = 0; i < 500; i++) {
		x = x * 1664525 + 1013904223;
		size_t size = ((x >> 10) % 60 + 1) * PAGE;
		unsigned char *p = map(size);
		if (p == MAP_FAILED || p[0] || p[size - 1]) {
			wrong++;
			continue;
		}
		memset(p, x, size);
		sched_yield();
		wrong += !all_bytes(p, size, x);
		munmap(p, size);
	}
	return (void *)wrong;
}

static void test_threads(void)
{
	pthread_t threads[4];
	long wrong = 0;
	for (long i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, map_and_unmap, (void *)(i + 1));
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(threads[i], &result);
		wrong += (long)result;
	}
	CHECK(wrong == 0, "four threads map and unmap at the same time");
}

/* Ranges whose end precedes their start. */
static void test_wrapping(void)
{
	int fd = open("/tmp/wrapping", O_RDWR | O_CREAT | O_CLOEXEC, 0600), refused = 0;
	CHECK(ftruncate(fd, 16 * PAGE) == 0, "a file to map");
	unsigned char *maps[] = {
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
		mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0),
	};
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		unsigned char *p = maps[i] + 4 * PAGE;
		const size_t lengths[] = {-(size_t)p, -(size_t)PAGE, 1 - (size_t)p, 1UL << 63, -2UL * PAGE};
		memset(maps[i], 0x33, 16 * PAGE);
		for (size_t n = 0; n < ARRAY_SIZE(lengths); n++) {
			refused += munmap(p, lengths[n]) == -1;
			refused += mremap(p, lengths[n], PAGE, 0) == MAP_FAILED;
			refused += mmap(p, lengths[n], PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
		}
		CHECK(all_bytes(maps[i], 16 * PAGE, 0x33), "lengths that wrap leave a mapping as it is");
		munmap(maps[i], 16 * PAGE);
	}
	CHECK(refused == 4 * 5 * 3, "and are refused");
	close(fd);
	unlink("/tmp/wrapping");
}

int main(void)
{
	test_anonymous();
	test_wrapping();
	test_fixed();
	test_partial();
	test_remap();
	test_protection();
	test_advice();
	test_malloc();
	test_stack();
	test_threads();
	return tap_done();
}
