// SPDX-License-Identifier: Apache-2.0
// Shared mappings of files that are cut and touched again while the kernel reclaims page cache.
#define _GNU_SOURCE
#include "mapping.h"
#include "tap.h"
#include "util.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

enum { PAGES = 48, ROUNDS = 1500, MAPPERS = 3, READERS = 3 };

/* Each page reappears as zeros, in its place, whether or not reclaim holds the one that was cut off. */
static const char *cut_and_touch(void)
{
	int fd = new_file(PAGES * PAGE);
	char *a = fd < 0 ? MAP_FAILED : map(fd, PAGES * PAGE, 0);
	if (a == MAP_FAILED)
		return "no mapping";
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < PAGES; i++) {
			if (a[i * PAGE])
				return "a page was not zero";
			if (i % 7 == round % 7)
				a[i * PAGE] = 'A';
		}
		if (ftruncate(fd, 0) || ftruncate(fd, PAGES * PAGE))
			return "no change of the size";
	}
	drop(fd);
	return NULL;
}

static int mapper(void)
{
	const char *problem = cut_and_touch();
	if (problem)
		printf("# %s: %s\n", problem, strerror(errno));
	fflush(stdout);
	return problem != NULL;
}

/* Fills the page cache with the zeros of a file that is larger than memory, until it is killed. */
static void read_on(void)
{
	static char buffer[1 << 16];
	off_t size = (off_t)sysconf(_SC_PHYS_PAGES) * PAGE;
	int fd = new_file(size);
	unlink(path);
	for (;;)
		if (read(fd, buffer, sizeof buffer) <= 0 && lseek(fd, 0, SEEK_SET) < 0)
			_exit(1);
}

int main(void)
{
	pid_t mappers[MAPPERS], readers[READERS];
	int ended = 0, status;
	directory = "/root";
	for (int i = 0; i < READERS; i++)
		if (!(readers[i] = fork()))
			read_on();
	for (int i = 0; i < MAPPERS; i++)
		if (!(mappers[i] = fork()))
			_exit(mapper());
	for (int i = 0; i < MAPPERS; i++) {
		ended += waitpid(mappers[i], &status, 0) == mappers[i] && status == 0;
		if (status)
			printf("# a mapper ended with status %#x\n", status);
	}
	CHECK(ended == MAPPERS, "pages that are cut off and touched again, while page cache is reclaimed");
	ended = 0;
	for (int i = 0; i < READERS; i++) {
		kill(readers[i], SIGKILL);
		ended += waitpid(readers[i], &status, 0) == readers[i] && WIFSIGNALED(status);
	}
	CHECK(ended == READERS, "the readers have read until then");
	return tap_done();
}
