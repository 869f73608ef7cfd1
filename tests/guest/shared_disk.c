// SPDX-License-Identifier: Apache-2.0
// Shared mappings of files in the directory given as argument 1: all stores reach the disk.
#define _GNU_SOURCE
#include "mapping.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

/* Makes the kernel drop the file's pages, so that the next read comes from the disk. */
static void forget(int fd)
{
	sync();
	int control = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (control >= 0) {
		ssize_t n = write(control, "1", 1);
		(void)n;
		close(control);
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void test_write_back(void)
{
	enum { PAGES = 40 };
	int fd = new_file(PAGES * PAGE);
	char *a = map(fd, PAGES * PAGE, 0), byte = 0;
	struct stat st;
	if (!CHECK(a != MAP_FAILED, "a sparse file"))
		return;
	for (int i = 0; i < PAGES; i += 2)
		a[i * PAGE + 17] = 'A';
	CHECK(msync(a, PAGES * PAGE, MS_SYNC) == 0, "msync");
	for (int i = 0; i < PAGES; i += 3)
		a[i * PAGE + 18] = 'B';
	CHECK(fsync(fd) == 0, "fsync");
	for (int i = 0; i < PAGES; i += 5)
		a[i * PAGE + 19] = 'C';
	CHECK(msync(a, PAGES * PAGE, MS_ASYNC) == 0 && msync(a + PAGE, PAGE, MS_SYNC | MS_INVALIDATE) == 0, "msync of a part");
	sync();
	a[19] = 'D';
	CHECK(msync(a + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL, "msync of an odd address: EINVAL");
	munmap(a, PAGES * PAGE);
	CHECK(msync(a, PAGE, MS_SYNC) == -1 && errno == ENOMEM, "msync of nothing: ENOMEM");
	forget(fd);
	int wrong = 0;
	for (int i = 0; i < PAGES; i++) {
		wrong += pread(fd, &byte, 1, i * PAGE + 17) != 1 || byte != (i % 2 ? 0 : 'A');
		wrong += pread(fd, &byte, 1, i * PAGE + 18) != 1 || byte != (i % 3 ? 0 : 'B');
		wrong += pread(fd, &byte, 1, i * PAGE + 19) != 1 || byte != (i == 0 ? 'D' : i % 5 ? 0 : 'C');
	}
	CHECK(wrong == 0, "what was stored before and after each of them is in the file");
	CHECK(fstat(fd, &st) == 0 && st.st_blocks >= 0, "which has blocks");
	drop(fd);
}

static volatile int stop_syncing;

static void *keep_syncing(void *fd)
{
	while (!stop_syncing) {
		fsync(*(int *)fd);
		sched_yield();
	}
	return NULL;
}

/* Stores race with write-back: an unwritten store must not count as written. */
static void test_racing_write_back(void)
{
	enum { PAGES = 8, ROUNDS = 2000 };
	int fd = new_file(PAGES * PAGE);
	uint32_t *a = (uint32_t *)(void *)map(fd, PAGES * PAGE, 0), value;
	pthread_t t;
	pthread_create(&t, NULL, keep_syncing, &fd);
	unsigned seed = 7;
	static uint32_t model[PAGES * PAGE / 4];
	for (int i = 0; i < ROUNDS; i++) {
		seed = seed * 1664525 + 1013904223;
		unsigned at = (seed >> 8) % (PAGES * PAGE / 4);
		a[at] = model[at] = seed;
		if (i % 16 == 0)
			sched_yield();
	}
	stop_syncing = 1;
	pthread_join(t, NULL);
	munmap(a, PAGES * PAGE);
	forget(fd);
	int wrong = 0;
	for (unsigned i = 0; i < PAGES * PAGE / 4; i++)
		wrong += pread(fd, &value, 4, i * 4) != 4 || value != model[i];
	CHECK(wrong == 0, "2000 stores while another thread writes back: all in the file");
	drop(fd);
}

/* Everything at once, against a copy in private memory. */
static void test_random(void)
{
	enum { PAGES = 12, SIZE = PAGES * PAGE, MAPS = 4 };
	static char model[SIZE], buffer[SIZE];
	char *at[MAPS] = {0};
	size_t from[MAPS] = {0}, length[MAPS] = {0};
	int fd = new_file(SIZE / 2), wrong = 0;
	size_t size = SIZE / 2;
	unsigned seed = 99;
	// whole mapping first: later overlapping ones are parts of it
	char *whole = map(fd, SIZE, 0);
	for (int round = 0; round < 3000 && !wrong; round++) {
		seed = seed * 1664525 + 1013904223;
		unsigned what = (seed >> 8) % 10, k = (seed >> 12) % MAPS, r = seed >> 14;
		seed = seed * 1664525 + 1013904223;
		size_t place = size ? (seed >> 8) % size : 0, some = 1 + (seed >> 5) % (2 * PAGE);
		if (some > size - place)
			some = size - place;
		switch (what) {
		case 0:
			if (at[k])
				munmap(at[k], length[k]);
			from[k] = r % PAGES * PAGE;
			length[k] = (1 + r / PAGES % (PAGES - from[k] / PAGE)) * PAGE;
			at[k] = map(fd, length[k], (off_t)from[k]);
			if (at[k] == MAP_FAILED) {
				at[k] = NULL;
				wrong++;
			}
			break;
		case 1:
			size = r % (SIZE + 1);
			memset(model + size, 0, SIZE - size);
			wrong += ftruncate(fd, (off_t)size) != 0;
			break;
		case 2:
		case 3:
			memset(buffer, (int)r, some);
			memset(model + place, (int)r, some);
			wrong += pwrite(fd, buffer, some, (off_t)place) != (ssize_t)some;
			break;
		case 4:
			wrong += pread(fd, buffer, SIZE, 0) != (ssize_t)size || memcmp(buffer, model, size);
			break;
		case 5:
			wrong += r % 4 ? msync(whole, SIZE, MS_ASYNC) : fsync(fd);
			break;
		default:
			if (at[k] && from[k] < size) {
				size_t end = from[k] + length[k] < size ? from[k] + length[k] : size;
				size_t o = from[k] + r % (end - from[k]), n = end - o < 300 ? end - o : 300;
				if (what < 8) {
					memset(at[k] + o - from[k], (int)seed, n);
					memset(model + o, (int)seed, n);
				} else {
					wrong += memcmp(at[k], model + from[k], end - from[k]) != 0;
				}
			}
		}
		if (wrong)
			tap_note("round %d, operation %u", round, what);
	}
	CHECK(whole != MAP_FAILED && wrong == 0, "3000 random stores, writes, reads, truncations, mappings");
	for (int k = 0; k < MAPS; k++)
		if (at[k])
			munmap(at[k], length[k]);
	munmap(whole, SIZE);
	forget(fd);
	CHECK(pread(fd, buffer, SIZE, 0) == (ssize_t)size && !memcmp(buffer, model, size), "the file is right in the end");
	drop(fd);
}

/* One boot stores to a file through a mapping that it never synchronizes; the next one checks the file. */
static int keep(const char *file, int store)
{
	enum { PAGES = 50 };
	int fd = open(file, store ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600), wrong = 0;
	if (store && ftruncate(fd, PAGES * PAGE))
		return 2;
	char *a = mmap(NULL, PAGES * PAGE, store ? RW : PROT_READ, MAP_SHARED, fd, 0);
	if (a == MAP_FAILED)
		return 3;
	for (int i = 0; i < PAGES; i += 3) {
		if (store)
			a[i * PAGE + i] = 'k';
		wrong += a[i * PAGE + i] != 'k';
	}
	return wrong != 0;
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "store") || is_role(argc, argv, "load"))
		return keep(argv[2], argv[1][0] == 's');
	if (argc > 1)
		directory = argv[1];
	catch_faults();
	test_write_back();
	test_racing_write_back();
	test_random();
	return tap_done();
}
