// SPDX-License-Identifier: Apache-2.0
// Protected memory: PROT_NONE, read-only memory, memory that is unmapped. A wrong access is the program's SIGSEGV with
// the right details, or EFAULT from a system call. In a VM, read-only protection is enforced only with the kernel parameter
// protect=all; without it, this program checks that memory is writable. protect_stacks.c tests the guards below stacks.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static void test_none(void)
{
	char *p = map(8 * PAGE, PROT_READ | PROT_WRITE);
	memset(p, 0x5a, 8 * PAGE);
	CHECK(mprotect(p + 2 * PAGE, 3 * PAGE, PROT_NONE) == 0, "mprotect to PROT_NONE");
	CHECK(reading(p + 2 * PAGE) == SEGV_ACCERR && reading(p + 5 * PAGE - 1) == SEGV_ACCERR,
	      "reading there is SIGSEGV with SEGV_ACCERR and the address");
	CHECK(writing(p + 3 * PAGE + 17) == SEGV_ACCERR, "so is writing");
	CHECK(running(p + 4 * PAGE) == SEGV_ACCERR, "and running");
	CHECK(!reading(p + 2 * PAGE - 1) && !reading(p + 5 * PAGE) && !writing(p + 2 * PAGE - 1) && !writing(p + 5 * PAGE),
	      "the neighbors are as before");
	CHECK(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE) == 0 && !writing(p + 3 * PAGE) &&
		      reading(p + 4 * PAGE) == SEGV_ACCERR, "a part is opened again");
	CHECK(mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE) == 0 && all_bytes(p, 8 * PAGE, 0x5a),
	      "what was hidden has its contents");
	munmap(p, 8 * PAGE);

	p = map(16 * MB, PROT_NONE);
	CHECK(p != MAP_FAILED && reading(p) == SEGV_ACCERR && writing(p + 16 * MB - 1) == SEGV_ACCERR,
	      "a mapping with PROT_NONE");
	CHECK(mprotect(p + MB, MB, PROT_READ | PROT_WRITE) == 0 && all_bytes(p + MB, MB, 0) &&
		      memset(p + MB, 1, MB) && reading(p + MB - 1) == SEGV_ACCERR && reading(p + 2 * MB) == SEGV_ACCERR,
	      "of which a part is opened, no more");
	munmap(p, 16 * MB);
}

static void test_read_only(void)
{
	static const unsigned char code[] = {0xc3}; // ret
	char *p = map(4 * PAGE, PROT_READ | PROT_WRITE);
	memset(p, 0x33, 4 * PAGE);
	CHECK(mprotect(p + PAGE, 2 * PAGE, PROT_READ) == 0 && all_bytes(p, 4 * PAGE, 0x33), "read-only memory is readable");
	CHECK(writing(p + PAGE) == SEGV_ACCERR && writing(p + 3 * PAGE - 1) == SEGV_ACCERR,
	      "writing there is SIGSEGV with SEGV_ACCERR and the address");
	CHECK(!writing(p + PAGE - 1) && !writing(p + 3 * PAGE), "the neighbors are writable");
	CHECK(mprotect(p + PAGE, PAGE, PROT_NONE) == 0 && reading(p + PAGE) == SEGV_ACCERR &&
		      mprotect(p + PAGE, PAGE, PROT_READ) == 0 && !reading(p + PAGE) &&
		      writing(p + PAGE) == SEGV_ACCERR, "from read-only to nothing and back");
	CHECK(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE) == 0 && !writing(p + PAGE), "and writable again");
	memcpy(p, code, sizeof code);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0 && !running(p) && writing(p) == SEGV_ACCERR,
	      "code that runs and cannot be written");
	munmap(p, 4 * PAGE);

	int fd = open(SELF, O_RDONLY | O_CLOEXEC);
	char head[PAGE];
	ssize_t n = pread(fd, head, sizeof head, 0);
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED && n > 0 && !memcmp(p, head, n) && writing(p) == refused, "a file mapped read-only");
	munmap(p, PAGE);
	p = map(4 * PAGE, PROT_READ);
	char *q = mmap(p + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK(q == p + PAGE && !memcmp(q, head, n) && !writing(q) && writing(p) == refused,
	      "MAP_FIXED over read-only memory, as dynamic linkers do it");
	q = mmap(p + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK(q == p + 2 * PAGE && !memcmp(q, head, n) && writing(q) == refused, "the same, read-only");
	munmap(p, 4 * PAGE);
	close(fd);
}

static int target;
static int *const relocated[] = {&target}; // in .data.rel.ro

static void test_program(void)
{
	CHECK(writing((char *)(uintptr_t)"a literal") == refused, "string literals cannot be written");
	CHECK(writing((char *)(uintptr_t)&test_program) == refused, "nor code");
	CHECK(writing((char *)(uintptr_t)relocated) == refused, "nor what is relocated and then read-only (RELRO)");
	CHECK(writing((char *)&target) == 0, "variables can");
}

static void test_unmapped(void)
{
	static const size_t sizes[] = {PAGE, 16 * PAGE, MB, 8 * MB};
	char name[80];
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		char *p = map(sizes[i], PROT_READ | PROT_WRITE);
		memset(p, 1, sizes[i]);
		munmap(p, sizes[i]);
		snprintf(name, sizeof name, "%zu KB that were unmapped: SIGSEGV with SEGV_MAPERR", sizes[i] / KB);
		CHECK(reading(p) == SEGV_MAPERR && writing(p + sizes[i] - 1) == SEGV_MAPERR, name);
	}
	char *p = map(8 * PAGE, PROT_READ | PROT_WRITE);
	memset(p, 0x22, 8 * PAGE);
	munmap(p, PAGE);
	munmap(p + 3 * PAGE, PAGE);
	munmap(p + 7 * PAGE, PAGE);
	CHECK(reading(p) == SEGV_MAPERR && reading(p + 3 * PAGE) == SEGV_MAPERR && reading(p + 7 * PAGE) == SEGV_MAPERR,
	      "so are parts of a mapping");
	CHECK(all_bytes(p + PAGE, 2 * PAGE, 0x22) && all_bytes(p + 4 * PAGE, 3 * PAGE, 0x22), "the rest stays");
	munmap(p + PAGE, 2 * PAGE);
	munmap(p + 4 * PAGE, 3 * PAGE);

	p = map(4 * PAGE, PROT_READ | PROT_WRITE);
	memset(p, 0x44, 4 * PAGE);
	CHECK(mremap(p, 4 * PAGE, 2 * PAGE, 0) == p && all_bytes(p, 2 * PAGE, 0x44) && reading(p + 2 * PAGE) == SEGV_MAPERR,
	      "and what mremap cuts off");
	char *q = mremap(p, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && all_bytes(q, 2 * PAGE, 0x44) && all_bytes(q + 2 * PAGE, 2 * PAGE, 0),
	      "it grows again, by zeros");
	munmap(q, 4 * PAGE);

	int good = 0;
	for (int i = 0; i < 300; i++) {
		p = map((i % 20 + 1) * PAGE, PROT_READ | PROT_WRITE);
		good += p != MAP_FAILED && all_bytes(p, (i % 20 + 1) * PAGE, 0);
		memset(p, i, (i % 20 + 1) * PAGE);
		munmap(p, (i % 20 + 1) * PAGE);
	}
	CHECK(good == 300, "memory that was unmapped comes back as zeros, 300 times");
}

/* Through the kernel: EFAULT, and complete parts before the fault are kept. */
static void test_system_calls(void)
{
	char *p = map(4 * PAGE, PROT_READ | PROT_WRITE);
	int fds[2];
	if (pipe(fds))
		return;
	memset(p, 'x', 4 * PAGE);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	mprotect(p + 3 * PAGE, PAGE, PROT_READ);
	CHECK(write(fds[1], p + PAGE, 10) == -1 && errno == EFAULT, "write() from PROT_NONE: EFAULT");
	CHECK(write(fds[1], p + 3 * PAGE, 10) == 10, "write() from read-only memory");
	CHECK(read(fds[0], p + PAGE, 5) == -1 && errno == EFAULT, "read() into PROT_NONE: EFAULT");
	write(fds[1], "0123456789", 10);
	ssize_t n = read(fds[0], p + 3 * PAGE + 8, 5);
	CHECK(n == -1 && errno == EFAULT, "read() into read-only memory: EFAULT");
	CHECK(all_bytes(p + 3 * PAGE, PAGE, 'x'), "which is as before");
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), self = open(SELF, O_RDONLY | O_CLOEXEC);
	n = read(zero, p + PAGE - 100, 200);
	CHECK(n == 100 || (n == -1 && errno == EFAULT), "read() across the border: short, or EFAULT");
	CHECK(read(self, p + PAGE, 100) == -1 && errno == EFAULT, "of a file: EFAULT");
	struct iovec parts[] = {{p, 64}, {p + PAGE, 64}};
	n = readv(self, parts, 2);
	CHECK(n == 64 || (n == -1 && errno == EFAULT), "readv() with one good part");
	CHECK(open(p + PAGE, O_RDONLY) == -1 && errno == EFAULT, "a path in PROT_NONE: EFAULT");
	memset(p + 2 * PAGE, '/', PAGE);
	p[3 * PAGE - 1] = '/';
	mprotect(p + 3 * PAGE, PAGE, PROT_NONE);
	CHECK(open(p + 3 * PAGE - 2, O_RDONLY) == -1 && errno == EFAULT, "or one without an end before it: EFAULT");
	CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, (struct timespec *)(p + PAGE)) == -1 && errno == EFAULT,
	      "a result that should go there: EFAULT");
	CHECK(syscall(SYS_futex, p + PAGE, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) == -1 && errno == EFAULT,
	      "a futex there: EFAULT");
	char *const argv[] = {p + PAGE, NULL};
	CHECK(execv(SELF, argv) == -1 && errno == EFAULT, "execve with an argument there: EFAULT");
	mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE);
	CHECK(read(fds[0], p + PAGE, 20) > 0, "opened again, the same call succeeds");
	munmap(p, 4 * PAGE);
	CHECK(write(fds[1], p, 10) == -1 && errno == EFAULT, "write() from unmapped memory: EFAULT");
	close(fds[0]);
	close(fds[1]);
	close(zero);
	close(self);
}

static void test_advice(void)
{
	char *p = map(8 * PAGE, PROT_READ | PROT_WRITE);
	memset(p, 0x66, 8 * PAGE);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	mprotect(p + 4 * PAGE, 2 * PAGE, PROT_READ);
	CHECK(madvise(p, 8 * PAGE, MADV_DONTNEED) == 0 && reading(p + PAGE) == SEGV_ACCERR &&
		      writing(p + 4 * PAGE) == SEGV_ACCERR, "MADV_DONTNEED leaves the protection");
	mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE);
	CHECK(all_bytes(p, 8 * PAGE, 0), "and clears the contents");
	memset(p, 0x66, 8 * PAGE);
	char *q = mmap(p + 2 * PAGE, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(q == p + 2 * PAGE && reading(q) == SEGV_ACCERR && !reading(p + 6 * PAGE),
	      "a part is given up by MAP_FIXED with PROT_NONE");
	q = mmap(p + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(q == p + 3 * PAGE && all_bytes(q, PAGE, 0) && !writing(q) && reading(q - 1) == SEGV_ACCERR &&
		      reading(q + PAGE) == SEGV_ACCERR, "and a page of it taken again");
	munmap(p, 8 * PAGE);
}

/* The permissions of the line of /proc/self/maps that holds an address; "" for none. */
static const char *shown(const char *at)
{
	/* without stdio, whose memory may come from where the mapping was */
	static char found[8], maps[65536];
	unsigned long start, end;
	ssize_t size = 0, more;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	*found = '\0';
	while ((more = read(fd, maps + size, sizeof maps - 1 - size)) > 0)
		size += more;
	close(fd);
	maps[size] = '\0';
	for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
		char perms[8];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3 && (uintptr_t)at >= start && (uintptr_t)at < end)
			strcpy(found, perms);
	}
	return found;
}

static void test_maps(void)
{
	char *p = map(6 * PAGE, PROT_READ | PROT_WRITE);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	mprotect(p + 2 * PAGE, PAGE, PROT_READ);
	mprotect(p + 3 * PAGE, PAGE, PROT_READ | PROT_EXEC);
	mprotect(p + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	static const char *const wanted[] = {"rw-p", "---p", "r--p", "r-xp", "rwxp", "rw-p"};
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		char name[80];
		snprintf(name, sizeof name, "/proc/self/maps shows %s", wanted[i]);
		if (!CHECK(!strcmp(shown(p + i * PAGE), wanted[i]), name))
			tap_note("it shows '%s'", shown(p + i * PAGE));
	}
	munmap(p, 6 * PAGE);
	CHECK(!*shown(p), "and nothing that is unmapped");
	CHECK(!strcmp(shown((char *)(uintptr_t)&test_maps), "r-xp"), "a program's code is r-xp");
	CHECK(!strcmp(shown((char *)&target), "rw-p"), "its variables are rw-p");
	CHECK(!strncmp(shown((char *)&p), "rw", 2), "its stack is writable");
}

/* Random protections of 64 pages against a model. */
static void test_random(void)
{
	enum { PAGES = 64 };
	static const int kinds[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
	char *p = map(PAGES * PAGE, PROT_READ | PROT_WRITE);
	int model[PAGES], wrong = 0;
	unsigned x = 7;
	for (int i = 0; i < PAGES; i++)
		model[i] = PROT_READ | PROT_WRITE;
	for (int round = 0; round < 400; round++) {
		x = x * 1664525 + 1013904223;
		int first = (x >> 8) % PAGES, count = 1 + (x >> 16) % (PAGES - first), kind = kinds[(x >> 24) % 3];
		wrong += mprotect(p + first * PAGE, count * PAGE, kind) != 0;
		for (int i = first; i < first + count; i++)
			model[i] = kind;
		for (int i = round % 7; i < PAGES; i += 7) {
			wrong += reading(p + i * PAGE + 99) != (model[i] & PROT_READ ? 0 : SEGV_ACCERR);
			wrong += writing(p + i * PAGE + 99) != (model[i] & PROT_WRITE ? 0 : SEGV_ACCERR);
		}
	}
	CHECK(wrong == 0, "400 random changes of protection, each page as it was last set");
	munmap(p, PAGES * PAGE);
}

/* More changes of protection than there may be mappings on the host: some have no effect, and nothing is lost. */
static void test_limit(void)
{
	enum { MAPS = 9, SIZE = 16 * MB };
	static char *maps[MAPS];
	int failed = 0, wrong = 0, hidden = 0, got = 0;
	for (; got < MAPS && (maps[got] = map(SIZE, PROT_READ | PROT_WRITE)) != MAP_FAILED; got++)
		;
	for (int i = 0; i < got; i++) {
		memset(maps[i], i, SIZE);
		for (int at = PAGE; at < SIZE; at += 2 * PAGE)
			failed += mprotect(maps[i] + at, PAGE, PROT_NONE) && errno != ENOMEM;
	}
	CHECK(failed == 0, "every other page of 144 MB is hidden, or there is no room for so many mappings");
	for (int i = 0; i < got; i++)
		for (int at = 0; at < SIZE; at += PAGE) {
			int code = reading(maps[i] + at);
			wrong += code && (code != SEGV_ACCERR || at % (2 * PAGE) == 0);
			hidden += code != 0;
		}
	CHECK(wrong == 0 && (hidden > 4000 || got < MAPS), "many are, and no page beside them");
	for (int i = 0; i < got; i++) {
		mprotect(maps[i], SIZE, PROT_READ | PROT_WRITE);
		wrong += !all_bytes(maps[i], SIZE, i);
		munmap(maps[i], SIZE);
	}
	char *p = map(PAGE, PROT_NONE);
	CHECK(wrong == 0 && reading(p) == SEGV_ACCERR, "afterwards all contents are there, and protection works again");
	munmap(p, PAGE);
}

/* A debugger writes where the program may not. */
static void test_poke(void)
{
	static const char text[] __attribute__((aligned(8))) = "not writable at all";
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	char byte = 0;
	if (!CHECK(fd >= 0, "/proc/self/mem"))
		return;
	char *p = map(PAGE, PROT_READ | PROT_WRITE);
	memset(p, 'h', PAGE);
	mprotect(p, PAGE, PROT_NONE);
	CHECK(pread(fd, &byte, 1, (off_t)(uintptr_t)p) == 1 && byte == 'h', "PROT_NONE is read through it");
	CHECK(reading(p) == SEGV_ACCERR, "and stays PROT_NONE");
	munmap(p, PAGE);
	CHECK(pwrite(fd, "N", 1, (off_t)(uintptr_t)text) == 1 && *(const volatile char *)text == 'N',
	      "read-only memory is written through it");
	CHECK(writing((char *)(uintptr_t)text) == refused, "and stays read-only");
	close(fd);
}

int main(void)
{
	look_for_read_only();
	handle(0);
	test_none();
	test_read_only();
	test_program();
	test_unmapped();
	test_system_calls();
	test_advice();
	test_maps();
	test_random();
	test_limit();
	test_poke();
	return tap_done();
}
