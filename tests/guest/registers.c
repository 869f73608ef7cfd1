// SPDX-License-Identifier: Apache-2.0
// General registers, RFLAGS and the red zone: kept across system calls, asynchronous signals and preemption.
// Argument "raw": use the syscall instruction even where the kernel offers AT_SYSINFO.
#define _GNU_SOURCE
#include "gate.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

/*
 * long keep(long spins, long number, unsigned long gate, long flags)
 *
 * Fills every general register and 128 bytes under the stack pointer with known values, sets the arithmetic and
 * direction flags as asked, then either spins without touching a flag (number < 0) or makes one system call, and
 * compares everything. Returns 0 or the number of what changed: 1..14 a register, 20 the stack pointer,
 * 21 the red zone, 22 the flags.
 */
long keep(long spins, long number, unsigned long gate, long flags);
__asm__(".text\n"
	".globl keep\n"
	".type keep, @function\n"
	"keep:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	sub $56, %rsp\n"
	"	mov %rdi, 0(%rsp)\n" // spins
	"	mov %rsi, 8(%rsp)\n" // number
	"	mov %rdx, 16(%rsp)\n" // gate
	"	mov %rcx, 24(%rsp)\n" // flags wanted
	"	mov %rsp, saved_rsp(%rip)\n" // only one thread may run this at a time
	"	mov $0x1122334455667788, %rax\n"
	"	.set i, 8\n"
	"	.rept 16\n"
	"	mov %rax, -i(%rsp)\n"
	"	add $0x0101, %rax\n"
	"	.set i, i+8\n"
	"	.endr\n"
	"	mov $0x1000000000000001, %rbx\n"
	"	mov $0x2000000000000002, %rbp\n"
	"	mov $0x3000000000000003, %r12\n"
	"	mov $0x4000000000000004, %r13\n"
	"	mov $0x5000000000000005, %r14\n"
	"	mov $0x6000000000000006, %r15\n"
	"	mov $0x7000000000000007, %rdi\n"
	"	mov $0x8000000000000008, %rsi\n"
	"	mov $0x9000000000000009, %rdx\n"
	"	mov $0xa00000000000000a, %r8\n"
	"	mov $0xb00000000000000b, %r9\n"
	"	mov $0xc00000000000000c, %r10\n"
	// The flags are loaded below the red zone.
	"	mov 24(%rsp), %rax\n"
	"	lea -128(%rsp), %rsp\n"
	"	push %rax\n"
	"	popfq\n"
	"	lea 128(%rsp), %rsp\n"
	"	mov 8(%rsp), %rax\n"
	"	mov %rax, %rcx\n"
	"	mov 16(%rsp), %r11\n"
	"	lea 1(%rcx), %rcx\n" // number -1: spin
	"	jrcxz 1f\n"
	// The path through the gate must not touch a flag, so R11 is not tested here.
	"	mov %r11, %rcx\n"
	"	jrcxz 3f\n"
	"	lea 4f(%rip), %rcx\n"
	"	jmp *%r11\n"
	"3:	syscall\n"
	"4:	jmp 5f\n"
	"1:	mov 0(%rsp), %rcx\n"
	"	mov $0xd00000000000000d, %r11\n"
	"	mov $0xe00000000000000e, %rax\n"
	"2:	lea -1(%rcx), %rcx\n"
	"	jrcxz 6f\n"
	"	jmp 2b\n"
	"6:\n"
	// Keep the flags, then compare.
	"	lea -128(%rsp), %rsp\n"
	"	pushfq\n"
	"	pop %rcx\n"
	"	lea 128(%rsp), %rsp\n"
	"	cld\n"
	"	mov %rcx, 32(%rsp)\n"
	"	mov %rax, 40(%rsp)\n"
	"	mov $0xd00000000000000d, %rax\n	cmp %rax, %r11\n	mov $13, %eax\n	jne 9f\n"
	"	mov $0xe00000000000000e, %rax\n	cmp %rax, 40(%rsp)\n	mov $14, %eax\n	jne 9f\n"
	"	jmp 7f\n"
	"5:	lea -128(%rsp), %rsp\n"
	"	pushfq\n"
	"	pop %rcx\n"
	"	lea 128(%rsp), %rsp\n"
	"	cld\n"
	"	mov %rcx, 32(%rsp)\n"
	"7:\n"
	"	mov $0x1000000000000001, %rcx\n	cmp %rcx, %rbx\n	mov $1, %eax\n	jne 9f\n"
	"	mov $0x2000000000000002, %rcx\n	cmp %rcx, %rbp\n	mov $2, %eax\n	jne 9f\n"
	"	mov $0x3000000000000003, %rcx\n	cmp %rcx, %r12\n	mov $3, %eax\n	jne 9f\n"
	"	mov $0x4000000000000004, %rcx\n	cmp %rcx, %r13\n	mov $4, %eax\n	jne 9f\n"
	"	mov $0x5000000000000005, %rcx\n	cmp %rcx, %r14\n	mov $5, %eax\n	jne 9f\n"
	"	mov $0x6000000000000006, %rcx\n	cmp %rcx, %r15\n	mov $6, %eax\n	jne 9f\n"
	"	mov $0x7000000000000007, %rcx\n	cmp %rcx, %rdi\n	mov $7, %eax\n	jne 9f\n"
	"	mov $0x8000000000000008, %rcx\n	cmp %rcx, %rsi\n	mov $8, %eax\n	jne 9f\n"
	"	mov $0x9000000000000009, %rcx\n	cmp %rcx, %rdx\n	mov $9, %eax\n	jne 9f\n"
	"	mov $0xa00000000000000a, %rcx\n	cmp %rcx, %r8\n	mov $10, %eax\n	jne 9f\n"
	"	mov $0xb00000000000000b, %rcx\n	cmp %rcx, %r9\n	mov $11, %eax\n	jne 9f\n"
	"	mov $0xc00000000000000c, %rcx\n	cmp %rcx, %r10\n	mov $12, %eax\n	jne 9f\n"
	"	cmp %rsp, saved_rsp(%rip)\n	mov $20, %eax\n	jne 9f\n"
	"	mov $0x1122334455667788, %rcx\n"
	"	mov $21, %eax\n"
	"	.set i, 8\n"
	"	.rept 16\n"
	"	cmp %rcx, -i(%rsp)\n"
	"	jne 9f\n"
	"	add $0x0101, %rcx\n"
	"	.set i, i+8\n"
	"	.endr\n"
	"	mov 24(%rsp), %rcx\n"
	"	xor 32(%rsp), %rcx\n"
	"	and $0xcd5, %ecx\n" // CF PF AF ZF SF DF OF
	"	mov $22, %eax\n"
	"	jnz 9f\n"
	"	xor %eax, %eax\n"
	"9:	mov saved_rsp(%rip), %rsp\n"
	"	add $56, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size keep, .-keep\n"
	".local saved_rsp\n"
	".comm saved_rsp, 8, 8\n");

enum { NO_FLAGS = 0x202, ALL_FLAGS = 0x202 | 0x8d5, DIRECTION = 0x202 | 0x400 };

static volatile long signals_seen;
static volatile double sink;

static void disturb(int signal)
{
	double x = signals_seen++;
	for (int i = 0; i < 20; i++)
		x = x * 1.5 + 2;
	sink = x;
	getppid();
	(void)signal;
}

static int say(long wrong)
{
	if (wrong)
		tap_note("keep() found difference %ld", wrong);
	return wrong == 0;
}

static void test_calls(unsigned long gate)
{
	static const struct {
		long number;
		const char *name;
	} calls[] = {
		{SYS_getppid, "registers, flags and red zone across getppid"},
		{SYS_sched_yield, "across sched_yield"},
		{100000, "across a number that is no system call"},
		{-5, "across a negative number"},
		{SYS_write, "across a write with wild arguments"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		CHECK(say(keep(0, calls[i].number, gate, NO_FLAGS)), calls[i].name);
	CHECK(say(keep(0, SYS_getppid, gate, ALL_FLAGS)), "getppid with all arithmetic flags set");
	CHECK(say(keep(0, SYS_getppid, gate, DIRECTION)), "getppid with the direction flag set");
}

/* A real call that copies memory in the kernel while the guest's direction flag is set. */
static void test_direction_flag(unsigned long gate)
{
	char here[256] = "", again[256] = "";
	long result;
	if (!getcwd(here, sizeof here))
		return;
	register unsigned long r11 __asm__("r11") = gate;
	__asm__ volatile("std\n" GATE_INLINE "cld\n"
			 : "=a"(result), "+r"(r11)
			 : "0"((long)SYS_getcwd), "D"(again), "S"(sizeof again)
			 : "rcx", "rdx", "memory", "cc");
	CHECK(result > 0 && !strcmp(here, again), "getcwd works with the direction flag set by the guest");
}

/* Long enough: the time asked for and at least ten signals; on a busy host they may come late. */
static int enough(int64_t began, long before)
{
	int64_t passed = now_ns() - began;
	return (passed > 200000000 && signals_seen - before > 10) || passed > 5000000000;
}

static void test_storm(void)
{
	struct sigaction action = {.sa_handler = disturb, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	alarm_every_us(300);
	static const struct {
		long flags;
		const char *name;
	} kinds[] = {
		{NO_FLAGS, "all registers under a storm of signals"},
		{ALL_FLAGS, "the same with all arithmetic flags set"},
		{DIRECTION, "the same with the direction flag set"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		long before = signals_seen, wrong = 0;
		for (int64_t began = now_ns(); !wrong && !enough(began, before);)
			wrong = keep(300000, -1, 0, kinds[i].flags);
		CHECK(say(wrong), kinds[i].name);
		CHECK(signals_seen - before > 10, "and the signals did arrive");
	}
	alarm_every_us(0);
}

static void test_calls_in_storm(unsigned long gate)
{
	long wrong = 0, before = signals_seen, calls = 0;
	alarm_every_us(300);
	for (int64_t began = now_ns(); !wrong && !enough(began, before); calls++)
		wrong = keep(0, calls & 1 ? SYS_getppid : SYS_sched_yield, gate, NO_FLAGS);
	alarm_every_us(0);
	CHECK(say(wrong), "system calls under a storm of signals");
	CHECK(signals_seen - before > 10, "and the signals did arrive");
}

static volatile int stop;

static void *compete(void *unused)
{
	volatile unsigned long x = 1;
	while (!stop)
		x = x * 6364136223846793005UL + 1;
	return unused;
}

static void test_preemption(void)
{
	pthread_t rivals[2];
	long wrong = 0;
	for (int i = 0; i < 2; i++)
		pthread_create(&rivals[i], NULL, compete, NULL);
	for (int64_t end = now_ns() + 400000000; !wrong && now_ns() < end;)
		wrong = keep(3000000, -1, 0, ALL_FLAGS);
	stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(rivals[i], NULL);
	CHECK(say(wrong), "all registers while two other threads compete for the processor");
}

int main(int argc, char **argv)
{
	unsigned long gate = gate_for(argc, argv);
	tap_note("system calls by %s", gate ? "AT_SYSINFO" : "instruction");
	test_calls(gate);
	test_direction_flag(gate);
	test_storm();
	test_calls_in_storm(gate);
	test_preemption();
	return tap_done();
}
