// SPDX-License-Identifier: Apache-2.0
// Private mappings of a file, at random: mapped over, written to, protected, discarded, forked and unmapped, by a family
// of processes at the same time. Each process has a model of what every page must hold.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

enum { FILE_PAGES = 2048, PAGES = 2048, AREAS = 3, WRITTEN = 1 << 20, ZERO = 1 << 21 };

static struct area {
	char *at;
	int page[PAGES]; // a page of the file; or WRITTEN | value; or ZERO
	char fixed[PAGES];
} areas[AREAS];

static int fd, rounds = 3000;
static unsigned state;

static unsigned below(unsigned n)
{
	state = state * 1103515245 + 12345;
	return (state >> 10) % n;
}

static unsigned word_at(size_t page, size_t offset)
{
	return (unsigned)(page * 2654435761U + offset * 40503U);
}

static int holds(const char *at, int page)
{
	unsigned word;
	size_t where[] = {0, PAGE - 4, below(PAGE / 4) * 4, below(PAGE / 4) * 4};
	for (size_t i = 0; i < ARRAY_SIZE(where); i++) {
		memcpy(&word, at + where[i], sizeof word);
		if (word != (page == ZERO ? 0 : page & WRITTEN ? (page & 0xff) * 0x01010101U : word_at((size_t)page, where[i])))
			return 0;
	}
	return 1;
}

static int map_area(struct area *a)
{
	int first = (int)below(4) * 64; // the file has 256 pages more
	a->at = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)first * PAGE);
	if (a->at == MAP_FAILED) {
		a->at = NULL;
		return 0;
	}
	for (int i = 0; i < PAGES; i++)
		a->page[i] = first + i;
	memset(a->fixed, 0, sizeof a->fixed);
	return 1;
}

/* One change of some pages, or a check of them; 0: they had wrong contents. */
static int change(struct area *a, int first, int n)
{
	char *at = a->at + (size_t)first * PAGE;
	size_t size = (size_t)n * PAGE;
	int from = (int)below(256), value = 1 + (int)below(200), pipes[2];
	switch (below(9)) {
	case 0: // another part of the file
		if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, (off_t)from * PAGE) != at)
			return errno == ENOMEM;
		for (int i = 0; i < n; i++) {
			a->page[first + i] = from + i;
			a->fixed[first + i] = 0;
		}
		return 1;
	case 1:
		if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
			return errno == ENOMEM;
		for (int i = 0; i < n; i++) {
			a->page[first + i] = ZERO;
			a->fixed[first + i] = 0;
		}
		return 1;
	case 2:
		if (mprotect(at, size, value & 1 ? PROT_READ : PROT_READ | PROT_WRITE))
			return errno == ENOMEM;
		memset(a->fixed + first, value & 1, (size_t)n);
		return 1;
	case 3: // by the kernel, from the kernel's page of zeros or from the file
		if (a->fixed[first] || pread(fd, at, PAGE, (off_t)from * PAGE) != PAGE)
			return a->fixed[first];
		a->page[first] = from;
		return 1;
	case 4: // to the kernel
		if (pipe(pipes))
			return 1;
		value = write(pipes[1], at, PAGE) == PAGE;
		char text[PAGE];
		value = value && read(pipes[0], text, PAGE) == PAGE && holds(text, a->page[first]);
		close(pipes[0]);
		close(pipes[1]);
		return value;
	case 5:
	case 6:
		for (int i = first; i < first + n && i < first + 40; i++)
			if (!a->fixed[i]) {
				memset(a->at + (size_t)i * PAGE, value, PAGE);
				a->page[i] = WRITTEN | value;
			}
		return 1;
	default:
		for (int i = first; i < first + n && i < first + 100; i++)
			if (!holds(a->at + (size_t)i * PAGE, a->page[i]))
				return 0;
		return 1;
	}
}

static int all_hold(void)
{
	for (int i = 0; i < AREAS; i++)
		for (int page = 0; areas[i].at && page < PAGES; page++)
			if (!holds(areas[i].at + (size_t)page * PAGE, areas[i].page[page]))
				return 0;
	return 1;
}

/* Ends with 0 in each process that found what it expected, also in its children. */
static int go_on(int depth)
{
	pid_t children[8];
	int n = 0, good = 1;
	for (int round = 0; good && round < rounds >> depth; round++) {
		struct area *a = &areas[below(AREAS)];
		if (below(rounds / 3) == 0 && depth < 3 && n < (int)ARRAY_SIZE(children)) {
			unsigned seed = state ^ (unsigned)(depth * 77 + n);
			children[n] = fork();
			if (!children[n]) {
				state = seed;
				_exit(go_on(depth + 1));
			}
			n += children[n] > 0;
		}
		if (!a->at) {
			map_area(a);
		} else if (below(400) == 0) {
			munmap(a->at, (size_t)PAGES * PAGE);
			a->at = NULL;
		} else {
			int first = (int)below(PAGES), most = PAGES - first;
			good = change(a, first, 1 + (int)below(below(8) || most < 60 ? (unsigned)(most < 60 ? most : 60) : (unsigned)most));
		}
		if (below(50) == 0)
			sched_yield();
	}
	good = good && all_hold();
	for (int i = 0; i < n; i++) {
		int status = wait_status(children[i]);
		good = good && (exited_with(status, 0) || killed_by(status, SIGKILL)); // as there is too little memory
	}
	return !good;
}

int main(int argc, char **argv)
{
	static unsigned page[PAGE / 4];
	if (argc > 1)
		rounds = atoi(argv[1]);
	fd = open("/root/random", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	unlink("/root/random");
	for (size_t i = 0; i < FILE_PAGES + 256; i++) {
		for (size_t o = 0; o < PAGE; o += 4)
			page[o / 4] = word_at(i, o);
		if (write(fd, page, PAGE) != PAGE)
			return 2;
	}
	for (unsigned seed = 1; seed <= 6; seed++) {
		pid_t child = fork();
		if (!child) {
			state = seed * 7919;
			_exit(go_on(0));
		}
		int status = wait_status(child);
		if (!CHECK(exited_with(status, 0), "a family whose members map, write, protect, fork and unmap"))
			tap_note("seed %u, status %x", seed, status);
	}
	return tap_done();
}
