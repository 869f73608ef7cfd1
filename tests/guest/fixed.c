// SPDX-License-Identifier: Apache-2.0
// Mappings at addresses that programs choose: MAP_FIXED and MAP_FIXED_NOREPLACE where nothing is mapped, over and beside
// own mappings, hints, the same address in several processes, and unavailable addresses.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

// Requested by SBCL and others; a host's kernel has nothing there either.
#define LOW ((char *)0x50000000)

enum { ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS, RW = PROT_READ | PROT_WRITE };

static char *at(char *address, size_t size, int how)
{
	return mmap(address, size, RW, ANONYMOUS | how, -1, 0);
}

static int refuses(char *address, size_t size, int how, int error)
{
	errno = 0;
	return at(address, size, how) == MAP_FAILED && errno == error;
}

/* In the guest, pages that once were memory stay accessible. */
static int gone(char *address)
{
	return no_mmu() || reading(address) == SEGV_MAPERR;
}

static void test_free(char *base, const char *name)
{
	tap_note("%s", name);
	char *p = at(base, MB, MAP_FIXED);
	if (!CHECK(p == base && all_bytes(p, MB, 0), "MAP_FIXED where nothing is"))
		return;
	memset(p, 1, MB);
	CHECK(refuses(p, PAGE, MAP_FIXED_NOREPLACE, EEXIST) && refuses(p - PAGE, MB, MAP_FIXED_NOREPLACE, EEXIST) &&
		      refuses(p + MB - PAGE, MB, MAP_FIXED_NOREPLACE, EEXIST) && all_bytes(p, MB, 1),
	      "MAP_FIXED_NOREPLACE spares it: EEXIST");
	CHECK(at(p + MB, 64 * KB, MAP_FIXED_NOREPLACE) == p + MB && all_bytes(p + MB, 64 * KB, 0) && all_bytes(p, MB, 1),
	      "and is given what is free behind it");
	memset(p + MB, 2, 64 * KB);
	CHECK(at(p + MB / 2, MB, MAP_FIXED) == p + MB / 2 && all_bytes(p, MB / 2, 1) && all_bytes(p + MB / 2, MB, 0),
	      "MAP_FIXED over two mappings and beyond");
	CHECK(munmap(p + MB / 4, MB / 2) == 0 && gone(p + MB / 4) &&
		      gone(p + 3 * MB / 4 - 1) && all_bytes(p, MB / 4, 1), "a part is unmapped");
	CHECK(at(p + MB / 4 + 12 * KB, 8 * KB, MAP_FIXED) == p + MB / 4 + 12 * KB &&
		      all_bytes(p + MB / 4 + 12 * KB, 8 * KB, 0) && gone(p + MB / 4 + 20 * KB),
	      "and two pages of it mapped again");
	int fd = open(SELF, O_RDONLY | O_CLOEXEC);
	char head[4] = "";
	char *q = mmap(p + 4 * MB, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK(q == p + 4 * MB && pread(fd, head, 4, 0) == 4 && !memcmp(q, head, 4), "a file where nothing is");
	q = mmap(p + 4 * MB - PAGE, 3 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK(q == p + 4 * MB - PAGE && !memcmp(q, head, 4) && memcmp(q + PAGE, head, 4), "and over and around it");
	close(fd);
	CHECK(munmap(p, 8 * MB) == 0 && gone(p) && gone(p + 4 * MB), "all is unmapped");
	q = at(p, PAGE, MAP_FIXED_NOREPLACE);
	CHECK(q == p && all_bytes(q, PAGE, 0), "what is mapped again reads as zeros");
	munmap(p, PAGE);
}

static void test_hints(char *base)
{
	char *p = at(base, MB, 0), *q = at(base + MB / 2, MB, 0), *r = at(base + MB + 123, MB, 0);
	CHECK(p == base, "a hint is followed where it can be");
	CHECK(q != MAP_FAILED && (q >= p + MB || q + MB <= p) && all_bytes(p, MB, 0), "and not where something is");
	CHECK(r == base + MB, "it is rounded to a page");
	CHECK(munmap(p, MB) == 0 && munmap(q, MB) == 0 && munmap(r, MB) == 0, "they are unmapped");
	p = mmap(base, 12 * MB, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(p == base && mprotect(p + 8 * MB, MB, RW) == 0 && all_bytes(p + 8 * MB, MB, 0), "a reservation has a part opened");
	munmap(p, 12 * MB);
	// far away, and where programs are not
	char *const hints[] = {(char *)PAGE, (char *)0xc000000000, (char *)0x7fff80000000, (char *)&errno, (char *)test_hints};
	int mapped = 1;
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
		p = at(hints[i], PAGE, 0);
		mapped = mapped && p != MAP_FAILED && !*p;
		munmap(p, PAGE);
	}
	CHECK(mapped, "hints that cannot be followed do no harm");
}

static void test_impossible(void)
{
	CHECK(refuses(LOW + 1, PAGE, MAP_FIXED, EINVAL) && refuses(LOW + 1, PAGE, MAP_FIXED_NOREPLACE, EINVAL),
	      "an address inside a page: EINVAL");
	CHECK(refuses(LOW, 0, MAP_FIXED, EINVAL), "no length: EINVAL");
	CHECK(refuses(LOW, -PAGE, MAP_FIXED, ENOMEM) && refuses(LOW, 1UL << 47, MAP_FIXED, ENOMEM), "too much: ENOMEM");
	if (!no_mmu())
		return;
	char *const nobodys[] = {(char *)0x60000000, (char *)0x5fe00000, (char *)0x60000000 - 3 * MB, (char *)0x3000000000,
				 (char *)(1UL << 46), (char *)(1UL << 63), (char *)-(2UL * MB), (char *)(MB - PAGE)};
	int refused = 1;
	for (size_t i = 0; i < ARRAY_SIZE(nobodys); i++)
		refused = refused && refuses(nobodys[i], 4 * MB, MAP_FIXED, ENOMEM) &&
			  refuses(nobodys[i], 4 * MB, MAP_FIXED_NOREPLACE, ENOMEM);
	CHECK(refused, "addresses of the kernel, below 1 MB and beyond all: ENOMEM");
	CHECK(mmap(LOW, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED &&
		      at(LOW, PAGE, MAP_FIXED_NOREPLACE) == LOW, "shared memory without a file cannot be there");
	munmap(LOW, PAGE);
	CHECK(at((char *)MB, MB, MAP_FIXED) == (char *)MB && all_bytes((char *)MB, MB, 0), "all addresses from 1 MB on are available");
	munmap((char *)MB, MB);
}

/* Offsets that no file has, and a descriptor without contents to map. */
static void test_offsets(void)
{
	int file = open("/proc/self/exe", O_RDONLY), stream = socket(AF_UNIX, SOCK_STREAM, 0);
	const off_t offsets[] = {INT64_MIN, INT64_MIN + 4096, -4096, INT64_MAX - 4095};
	char *own = at(LOW, 8192, MAP_FIXED);

	CHECK(file >= 0 && stream >= 0 && own == LOW, "a file, a socket and a mapping");
	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		CHECK(syscall(SYS_mmap, LOW + 65536, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, offsets[i]) == -1,
		      "a free address and an offset that no file has");
		CHECK(syscall(SYS_mmap, own, 8192, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, offsets[i]) == -1,
		      "a mapping and an offset that no file has");
	}
	CHECK(mmap(own, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED, stream, 0) == MAP_FAILED && errno == ENODEV,
	      "a socket cannot be mapped");
	munmap(LOW, 8192);
	close(stream);
	close(file);
}

static void test_limits(void)
{
	struct rlimit old, limit;
	getrlimit(RLIMIT_DATA, &old);
	limit = (struct rlimit){16 * MB, old.rlim_max};
	setrlimit(RLIMIT_DATA, &limit);
	int refused = refuses(LOW, 64 * MB, MAP_FIXED, ENOMEM) && at(LOW, MB, MAP_FIXED_NOREPLACE) == LOW;
	setrlimit(RLIMIT_DATA, &old);
	CHECK(refused, "RLIMIT_DATA holds");
	munmap(LOW, MB);
	if (no_mmu())
		CHECK(refuses(LOW, 240 * MB, MAP_FIXED, ENOMEM) || at(LOW, PAGE, 0) != MAP_FAILED,
		      "more than there is memory is refused, or costs nothing");
	munmap(LOW, 240 * MB);
}

/* Each of the processes has the same address, and keeps what it has written there. */
static int keeps(int number)
{
	enum { SIZE = 256 * KB };
	char *p = at(LOW, SIZE, MAP_FIXED_NOREPLACE);
	if (p != LOW || !all_bytes(p, SIZE, 0))
		return 1;
	for (int round = 0; round < 50; round++) {
		memset(p, number + round, SIZE);
		sched_yield();
		if (!all_bytes(p, SIZE, (unsigned char)(number + round)))
			return 2;
		if (round % 10 == 9 && (madvise(p + 64 * KB, 64 * KB, MADV_DONTNEED) || !all_bytes(p + 64 * KB, 64 * KB, 0)))
			return 3;
	}
	pid_t pid = fork();
	if (!pid) {
		memset(p, 200, SIZE);
		sched_yield();
		_exit(all_bytes(p, SIZE, 200) ? 7 : 1);
	}
	memset(p, number, SIZE);
	if (!exited_with(wait_status(pid), 7) || !all_bytes(p, SIZE, (unsigned char)number))
		return 4;
	return 42;
}

static void test_several(void)
{
	pid_t pid[5];
	char number[12];
	int good = 1;
	for (int i = 0; i < 5; i++) {
		snprintf(number, sizeof number, "%d", 10 * i + 1);
		pid[i] = start_role("keeps", number);
	}
	for (int i = 0; i < 5; i++)
		good = exited_with(wait_status(pid[i]), 42) && good;
	CHECK(good, "five processes have the same address, and fork");
	// a mapping from before the fork, and one that each process makes after it
	char *p = at(LOW, 128 * KB, MAP_FIXED);
	memset(p, 5, 128 * KB);
	pid_t child = fork();
	if (!child) {
		char *q = at(LOW + MB, PAGE, MAP_FIXED_NOREPLACE);
		*q = 6;
		memset(p, 7, 64 * KB);
		sched_yield();
		_exit(q == LOW + MB && *q == 6 && all_bytes(p, 64 * KB, 7) && all_bytes(p + 64 * KB, 64 * KB, 5) ? 0 : 1);
	}
	char *q = at(LOW + MB, PAGE, MAP_FIXED_NOREPLACE);
	int own = q == LOW + MB && !*q;
	sched_yield();
	CHECK(own && !*q && exited_with(wait_status(child), 0) && all_bytes(p, 128 * KB, 5) && !*q, "relatives, too");
	munmap(LOW, 2 * MB);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "keeps"))
		return keeps(atoi(argv[2]));
	handle(0);
	test_free(LOW, "below the kernel");
	char *window = mmap(NULL, 16 * MB, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0);
	munmap(window, 16 * MB);
	test_free(window + MB, "where reservations are");
	test_hints(LOW);
	test_hints(window);
	test_impossible();
	test_offsets();
	test_limits();
	test_several();
	return tap_done();
}
