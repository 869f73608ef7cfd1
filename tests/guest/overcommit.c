// SPDX-License-Identifier: Apache-2.0
// Large mappings may exceed the free memory, take memory for touched pages only, and end a process that uses too much.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, MB = 1024 * 1024, COUNT = 6 };

static const char *const SETTING = "/proc/sys/vm/overcommit_memory";

static char *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void set(const char *value)
{
	FILE *file = fopen(SETTING, "w");
	CHECK(file && fputs(value, file) >= 0 && fclose(file) == 0, SETTING);
}

static void test_tables(size_t half)
{
	char *tables[COUNT];
	int mapped = 0, clean = 1;
	for (int i = 0; i < COUNT; i++) {
		tables[i] = map(half);
		mapped += tables[i] != MAP_FAILED;
	}
	CHECK(mapped == COUNT, "six mappings of half of the memory each");
	for (int i = 0; i < COUNT && mapped == COUNT; i++)
		for (size_t at = 0; at < half; at += half / 8 / PAGE * PAGE) {
			clean &= !tables[i][at];
			tables[i][at] = (char)(i + 1);
		}
	CHECK(clean, "they are clear");
	for (int i = 0; i < COUNT && mapped == COUNT; i++)
		clean &= tables[i][0] == i + 1;
	CHECK(clean, "and separate");
	/* The first one may lie in RAM, which takes it whole. */
	CHECK((size_t)number_after("/proc/self/status", "VmRSS:") << 10 < half + half / 2, "only what is touched becomes memory");
	for (int i = 0; i < COUNT; i++)
		if (tables[i] != MAP_FAILED)
			munmap(tables[i], half);
}

static void test_limits(size_t half)
{
	char *first = map(half), *second = map(half);
	CHECK(map(3 * half) == MAP_FAILED && errno == ENOMEM, "more than there is: ENOMEM");
	int small = 0;
	while (small < 4096 && map(MB) != MAP_FAILED)
		small++;
	CHECK(small < 4096 && errno == ENOMEM, "small mappings end with ENOMEM");
	(void)first, (void)second;
}

static void test_strict(size_t half)
{
	set("2");
	char *first = map(half), *second = map(half);
	CHECK(first == MAP_FAILED || second == MAP_FAILED, "overcommit_memory=2: ENOMEM");
	set("0");
}

/* Use the whole mapping. */
static void use(size_t half)
{
	for (int i = 0; i < 3; i++) {
		char *table = map(half);
		if (table == MAP_FAILED)
			_exit(1);
		memset(table, 1, half);
	}
	_exit(0);
}

int main(void)
{
	size_t half = ((size_t)number_after("/proc/meminfo", "MemTotal:") << 10) / 2 / PAGE * PAGE;
	test_tables(half);
	test_strict(half);
	int status = -1;
	pid_t pid = fork();
	if (pid == 0)
		use(half);
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the OOM killer ends who uses more than there is");
	char *table = map(half);
	CHECK(table != MAP_FAILED && !table[0] && !table[half - 1], "others continue");
	munmap(table, half);
	test_limits(half);
	return tap_done();
}
