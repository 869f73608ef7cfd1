/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fuzzers in C share that are guided by coverage: the code that they test is compiled with
 * -fsanitize-coverage=trace-pc, and conversations that reached code which no earlier one had reached are kept.
 */
#ifndef NABLA_COVERAGE_H
#define NABLA_COVERAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAP 65536
#define CORPUS 4096
#define CONVERSATION 4096

static uint8_t hits[MAP], seen[MAP];
static bool tracing;

/* gcc calls it at each branch; the sum of two places stands for the way from one to the other. */
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

struct conversation {
	uint32_t size;
	uint8_t bytes[CONVERSATION];
};

static struct conversation *corpus[CORPUS];
static size_t corpus_size;

static void damage(struct conversation *c)
{
	for (uint32_t count = c->size ? draw(4) : 0; count; count--) {
		uint32_t at = draw(c->size);
		switch (draw(3)) {
		case 0: c->bytes[at] ^= (uint8_t)(1u << draw(8)); break;
		case 1: c->bytes[at] = (uint8_t)draw(256); break;
		case 2: c->bytes[at] = draw(2) ? 0 : 0xff; break;
		}
	}
}

/* Makes a conversation of parts of earlier ones and up to `most` new parts, which add() appends. */
static void invent(struct conversation *c, void (*add)(struct conversation *), uint32_t most)
{
	c->size = 0;
	if (corpus_size && draw(8)) {
		*c = *corpus[draw((uint32_t)corpus_size)];
		/* go on with another one from somewhere */
		if (!draw(4)) {
			const struct conversation *other = corpus[draw((uint32_t)corpus_size)];
			uint32_t cut = c->size ? draw(c->size) : 0, from = other->size ? draw(other->size) : 0;
			uint32_t size = other->size - from;
			if (size > CONVERSATION - cut)
				size = CONVERSATION - cut;
			memcpy(c->bytes + cut, other->bytes + from, size);
			c->size = cut + size;
		}
	}
	for (uint32_t count = draw(most); count; count--)
		add(c);
	if (!draw(2))
		damage(c);
}

/* Returns true if a way was gone that is new, or one that was gone more often by an order of magnitude. */
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

/* Keeps the conversation if it was new. */
static void keep_if_new(const struct conversation *c)
{
	if (!is_new() || corpus_size == CORPUS)
		return;
	corpus[corpus_size] = malloc(sizeof *c);
	*corpus[corpus_size++] = *c;
}

/* The number of ways that were gone. */
static size_t ways(void)
{
	size_t count = 0;
	for (size_t i = 0; i < MAP; i++)
		count += seen[i] > 0;
	return count;
}

#endif
