/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by all coverage-guided fuzzers in C: the tested code is compiled with -fsanitize-coverage=trace-pc, and is_new()
 * returns whether the last input reached code that no earlier one had reached.
 */
#ifndef NABLA_COVERAGE_H
#define NABLA_COVERAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAP 65536

static uint8_t hits[MAP], seen[MAP];
static bool tracing;

/* gcc calls it at each branch; the sum of two places stands for the edge between them. */
__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void)
{
	static uintptr_t last;
	uintptr_t here = (uintptr_t)__builtin_return_address(0);
	if (!tracing)
		return;
	uint8_t *hit = &hits[(here ^ last >> 1) % MAP];
	*hit += *hit < 255;
	last = here;
}

static uint64_t state;

static uint32_t draw(uint32_t below)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((state >> 33) % below);
}

/* Returns true if a new edge was executed, or a known one more often by an order of magnitude. */
static bool is_new(void)
{
	bool any = false;
	for (size_t i = 0; i < MAP; i++) {
		uint8_t level = 0;
		for (uint8_t left = hits[i]; left; left >>= 2)
			level++;
		any |= level > seen[i];
		if (level > seen[i])
			seen[i] = level;
	}
	return any;
}

#endif
