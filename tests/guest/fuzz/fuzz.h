/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the fuzzers inside the VM: numbers from a seed, and values that often cause errors. */
#ifndef NABLA_FUZZ_H
#define NABLA_FUZZ_H

#include "../gate.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>

typedef unsigned long word;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t fuzz_state;

static inline void fuzz_seed(word seed)
{
	fuzz_state = seed * 0x9E3779B97F4A7C15UL + 1;
}

static inline word fuzz_word(void)
{
	fuzz_state ^= fuzz_state << 13;
	fuzz_state ^= fuzz_state >> 7;
	fuzz_state ^= fuzz_state << 17;
	return fuzz_state * 0x2545F4914F6CDD1DUL;
}

/* 0 … n-1 */
static inline word fuzz_below(word n)
{
	return (fuzz_word() >> 33) % n;
}

static inline int fuzz_one_in(word n)
{
	return fuzz_below(n) == 0;
}

#define fuzz_pick(array) ((array)[fuzz_below(ARRAY_SIZE(array))])

/* Borders of integers, of pages, of the address space, of the VM's kernel. */
static inline word fuzz_border(void)
{
	static const word borders[] = {
		0, 1, 2, 7, 8, 16, 0xff, 0x100, 0xfff, 0x1000, 0x1001, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, 1UL << 40, 1UL << 47, (1UL << 47) - 4096, 1UL << 48, 1UL << 63, ~(1UL << 63), -1UL, -2UL,
		-8UL, -100UL, -4095UL, -4096UL, -4097UL, 0x5ffff000, 0x60000000, 0x60001000, 0x7ffffffff000,
		0xffff800000000000, 0xffff888000000000, 0xffffffff81000000, 0xffffffffff600000, 0xdeadbeefdeadbeef,
	};
	switch (fuzz_below(4)) {
	case 0:
		return 1UL << fuzz_below(64);
	case 1:
		return (1UL << fuzz_below(64)) - 1;
	default:
		return fuzz_pick(borders);
	}
}

/* Any 64 bits, most often ones that matter. */
static inline word fuzz_any(void)
{
	switch (fuzz_below(4)) {
	case 0:
		return fuzz_word();
	case 1:
		return fuzz_below(100);
	default:
		return fuzz_border();
	}
}

/*
 * Like fuzz_any(), but never an address of the VM's kernel or memory: a program that jumps or writes there by itself can
 * do anything, which no fuzzer is needed to show.
 */
static inline word fuzz_outside(void)
{
	word value;
	do
		value = fuzz_any();
	while (value >= 0x5f000000 && value < 0x100000000);
	return value;
}

#endif
