/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the tests of forked processes: turns by pipes, and memory with known contents. */
#ifndef NABLA_RELATIVES_H
#define NABLA_RELATIVES_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline void give(int fd)
{
	if (write(fd, "x", 1) != 1)
		_exit(91);
}

static inline void take(int fd)
{
	char c;
	if (read(fd, &c, 1) != 1)
		_exit(92);
}

/* Two pipes: one word each way, to take turns. */
struct turns {
	int down[2], up[2];
};

static inline void turns_open(struct turns *t)
{
	if (pipe(t->down) || pipe(t->up))
		_exit(90);
}

static inline void turns_close(struct turns *t)
{
	close(t->down[0]), close(t->down[1]), close(t->up[0]), close(t->up[1]);
}

static inline char *memory(size_t size, int value)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		_exit(93);
	memset(p, value, size);
	return p;
}

static inline int all(const char *p, size_t size, int value)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != (char)value)
			return 0;
	return 1;
}

#endif
