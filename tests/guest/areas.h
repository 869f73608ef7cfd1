/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a process of fork_stress: areas whose content is a function of a number, and random changes of them. */
#ifndef NABLA_AREAS_H
#define NABLA_AREAS_H

#include "tap.h"
#include "util.h"

#include <sched.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define PAGE 4096UL
#define AREAS 20

struct area {
	char *at;
	size_t pages;
	unsigned number;
};

/* shared by all processes */
static struct shared {
	int forks, wanted, refused, bad, killed, execs, pokes, direct, unmapped;
	int counter[64];
} *shared;

static struct area areas[AREAS];
static unsigned state;
static int direct_fd = -1;

static unsigned rnd(unsigned below)
{
	state = state * 1103515245 + 12345;
	return (state >> 10) % below;
}

static void bad(const char *what)
{
	__sync_fetch_and_add(&shared->bad, 1);
	tap_note("wrong: %s, process %d", what, getpid());
	_exit(99);
}

static unsigned word(unsigned number, size_t offset)
{
	return number * 2654435761U + (unsigned)offset * 40503U;
}

static void fill(struct area *a)
{
	a->number = state ^ rnd(1 << 20);
	for (size_t o = 0; o < a->pages * PAGE; o += 128)
		*(unsigned *)(a->at + o) = word(a->number, o);
}

static void check(const struct area *a, const char *what)
{
	for (size_t o = 0; o < a->pages * PAGE; o += 128)
		if (*(unsigned *)(a->at + o) != word(a->number, o))
			bad(what);
}

static void check_all(const char *what)
{
	for (int i = 0; i < AREAS; i++)
		if (areas[i].at)
			check(&areas[i], what);
}

static void map(struct area *a)
{
	/* one in four where all processes choose among the same addresses */
	int fixed = !rnd(4);
	char *where = fixed ? (char *)0x40000000 + rnd(400) * 3 * PAGE : NULL;
	a->pages = 1 + rnd(rnd(8) ? 12 : 300);
	a->at = mmap(where, a->pages * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | (fixed ? MAP_FIXED_NOREPLACE : 0), -1, 0);
	if (a->at == MAP_FAILED) {
		a->at = NULL;
		return;
	}
	for (size_t o = 0; o < a->pages * PAGE; o += 512)
		if (a->at[o])
			bad("a new mapping is not empty");
	fill(a);
}

static void unmap(struct area *a)
{
	if (munmap(a->at, a->pages * PAGE))
		bad("munmap");
	a->at = NULL;
}

/* the front, the end, or all but the front of it */
static void unmap_part(struct area *a)
{
	if (a->pages < 3)
		return;
	size_t part = 1 + rnd(a->pages - 2);
	__sync_fetch_and_add(&shared->unmapped, 1);
	if (rnd(2)) {
		if (munmap(a->at, part * PAGE))
			bad("munmap of the front");
		a->at += part * PAGE;
		a->pages -= part;
		fill(a);
	} else if (rnd(2)) {
		if (munmap(a->at + (a->pages - part) * PAGE, part * PAGE))
			bad("munmap of the end");
		a->pages -= part;
	} else {
		char *at = mremap(a->at, a->pages * PAGE, part * PAGE, 0);
		if (at != a->at)
			bad("mremap to a part");
		a->pages = part;
	}
}

static void grow(struct area *a)
{
	size_t more = a->pages + 1 + rnd(5);
	char *at = mremap(a->at, a->pages * PAGE, more * PAGE, MREMAP_MAYMOVE);
	if (at == MAP_FAILED)
		return;
	a->at = at;
	check(a, "after mremap");
	a->pages = more;
	fill(a);
}

static void protect(struct area *a)
{
	size_t first = rnd(a->pages);
	char *at = a->at + first * PAGE;
	size_t size = (a->pages - first) * PAGE;
	if (mprotect(at, size, PROT_READ)) {
		if (errno != ENOMEM)
			bad("mprotect");
		return;
	}
	check(a, "read-only");
	if (rnd(2))
		sched_yield();
	check(a, "read-only still");
	if (mprotect(at, size, PROT_READ | PROT_WRITE) && errno != ENOMEM)
		bad("mprotect back");
	fill(a);
}

static void discard(struct area *a)
{
	if (rnd(2)) {
		/* relatives see the old contents, which may need memory for a copy */
		if (madvise(a->at, a->pages * PAGE, MADV_DONTNEED)) {
			if (errno != ENOMEM)
				bad("madvise");
			fill(a);
			return;
		}
	} else if (mmap(a->at, a->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		   a->at) {
		if (errno != ENOMEM)
			bad("MAP_FIXED");
		fill(a);
		return;
	}
	for (size_t o = 0; o < a->pages * PAGE; o += 128)
		if (*(unsigned *)(a->at + o))
			bad("discarded memory is not empty");
	fill(a);
}

/* through a pipe and back: the kernel reads and writes */
static void pass(struct area *a)
{
	int fd[2];
	if (pipe(fd))
		return;
	size_t size = 1 + rnd(a->pages > 8 ? 8 * PAGE : a->pages * PAGE);
	if (write(fd[1], a->at, size) == (ssize_t)size) {
		memset(a->at, 0, size);
		if (rnd(3) == 0)
			sched_yield();
		if (read(fd[0], a->at, size) != (ssize_t)size)
			bad("read from a pipe");
		check(a, "read from a pipe");
	}
	close(fd[0]);
	close(fd[1]);
}

static void direct(struct area *a)
{
	if (direct_fd < 0)
		return;
	/* each process has its own place in the file */
	off_t at = (off_t)(getpid() % 200) * 16 * PAGE;
	size_t size = (a->pages > 16 ? 16 : a->pages) * PAGE;
	if (pwrite(direct_fd, a->at, size, at) != (ssize_t)size)
		return;
	__sync_fetch_and_add(&shared->direct, 1);
	memset(a->at, 0x55, size);
	sched_yield();
	if (pread(direct_fd, a->at, size, at) != (ssize_t)size)
		bad("O_DIRECT read");
	/* a process with the same place may have written in between: only one's own memory counts */
	fill(a);
}

static void mutate(void)
{
	struct area *a = &areas[rnd(AREAS)];
	if (!a->at) {
		map(a);
		return;
	}
	switch (rnd(12)) {
	case 0:
		unmap(a);
		break;
	case 1:
		unmap_part(a);
		break;
	case 2:
		grow(a);
		break;
	case 3:
		protect(a);
		break;
	case 4:
		discard(a);
		break;
	case 5:
		pass(a);
		break;
	case 6:
		direct(a);
		break;
	default:
		fill(a);
	}
}

#endif
