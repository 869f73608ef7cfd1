/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls in both ways: a jump to the address in AT_SYSINFO with the return
 * address in RCX, or the plain instruction. Both clobber RAX, RCX and R11 and nothing else.
 */
#ifndef NABLA_GATE_H
#define NABLA_GATE_H

#include <sys/auxv.h>

/*
 * For assembly: expects the gate's address (or 0) in R11. The return address follows a `syscall` instruction
 * because the kernel restarts a call by stepping two bytes back from it.
 */
#define GATE_ASM                      \
	"	test %r11, %r11\n"    \
	"	jz 88f\n"             \
	"	lea 89f(%rip), %rcx\n" \
	"	jmp *%r11\n"          \
	"88:	syscall\n"            \
	"89:\n"

/* The same inside inline assembly with operands. */
#define GATE_INLINE                     \
	"	test %%r11, %%r11\n"    \
	"	jz 88f\n"               \
	"	lea 89f(%%rip), %%rcx\n" \
	"	jmp *%%r11\n"           \
	"88:	syscall\n"              \
	"89:\n"

/* The entry to use: none (the instruction) with the argument "raw", or if the kernel offers no entry. */
static inline unsigned long gate_for(int argc, char **argv)
{
	if (argc > 1 && argv[1][0] == 'r')
		return 0;
	return getauxval(AT_SYSINFO);
}

/* A system call through the given entry; the result is the kernel's, negative errno included. */
static inline long gate_call(unsigned long gate, long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	register unsigned long r11 __asm__("r11") = gate;
	__asm__ volatile(GATE_INLINE
			 : "=a"(result), "+r"(r11)
			 : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "memory", "cc");
	return result;
}

#endif
