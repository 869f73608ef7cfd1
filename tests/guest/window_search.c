// SPDX-License-Identifier: Apache-2.0
// The window is searched for each mapping that RAM has no stretch for, which takes about as long beside a large reservation.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#define GB (1024UL * MB)

static char *reserve(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* The shortest time, in ns, of mappings that RAM has no stretch for: the window is searched for each. */
static int64_t search_ns(void)
{
	int64_t shortest = INT64_MAX;
	for (int i = 0; i < 20; i++) {
		int64_t start = now_ns();
		char *p = mmap(NULL, 8 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return -1;
		int64_t took = now_ns() - start;
		shortest = took < shortest ? took : shortest;
		munmap(p, 8 * MB);
	}
	return shortest;
}

static void test_search(void)
{
	enum { MOST = 4096 };
	static char *pieces[MOST];
	size_t n = 0;
	char *p = reserve(512 * MB);
	if (!CHECK(p != MAP_FAILED, "a reservation of 512 MB"))
		return;
	for (size_t at = 0; at < 512 * MB; at += 2 * MB)
		p[at] = 1;
	munmap(p, 512 * MB); // leaves pages that are memory, and too few of them in a row
	while (n < MOST) {
		pieces[n] = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pieces[n] == MAP_FAILED)
			break;
		n++;
	}
	for (size_t i = 0; i < n; i += 2)
		munmap(pieces[i], MB);
	int64_t before = search_ns();
	p = reserve(24 * GB);
	int64_t after = search_ns();
	CHECK(n < MOST && before > 0 && p != MAP_FAILED && after > 0, "there are mappings of 8 MB beside gaps of 1 MB");
	// A search is linear in the reservation. A quadratic one takes hundreds of times as long.
	if (!CHECK(after < 50 * before, "beside a large reservation they take about as long"))
		tap_note("%lld ns instead of %lld ns", (long long)after, (long long)before);
	munmap(p, 24 * GB);
	for (size_t i = 1; i < n; i += 2)
		munmap(pieces[i], MB);
}

int main(void)
{
	test_search();
	return tap_done();
}
