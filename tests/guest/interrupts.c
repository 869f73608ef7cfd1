// SPDX-License-Identifier: Apache-2.0
// Registers of a program that faults continuously while a timer interrupts the kernel at every moment.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <ucontext.h>

enum { SIGNALS = 40000, PERIOD_NS = 15000, COUNT = 14 };

static volatile long signals;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

static void after_ud2(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

/* Fills all registers but RAX and RSP from `in`, faults, and writes them to `out`. */
void fault(const uint64_t *in, uint64_t *out);
__asm__(".text\n"
	"fault:\n"
	".irp r, rbx, rbp, r12, r13, r14, r15, rsi\n"
	"	push %\\r\n"
	".endr\n"
	"	mov %rdi, %r15\n"
	"	mov 0(%r15), %rbx\n"
	"	mov 8(%r15), %rcx\n"
	"	mov 16(%r15), %rdx\n"
	"	mov 24(%r15), %rsi\n"
	"	mov 32(%r15), %rdi\n"
	"	mov 40(%r15), %rbp\n"
	"	mov 48(%r15), %r8\n"
	"	mov 56(%r15), %r9\n"
	"	mov 64(%r15), %r10\n"
	"	mov 72(%r15), %r11\n"
	"	mov 80(%r15), %r12\n"
	"	mov 88(%r15), %r13\n"
	"	mov 96(%r15), %r14\n"
	"	mov 104(%r15), %r15\n"
	"	ud2\n"
	"	pop %rax\n"
	"	mov %rbx, 0(%rax)\n"
	"	mov %rcx, 8(%rax)\n"
	"	mov %rdx, 16(%rax)\n"
	"	mov %rsi, 24(%rax)\n"
	"	mov %rdi, 32(%rax)\n"
	"	mov %rbp, 40(%rax)\n"
	"	mov %r8, 48(%rax)\n"
	"	mov %r9, 56(%rax)\n"
	"	mov %r10, 64(%rax)\n"
	"	mov %r11, 72(%rax)\n"
	"	mov %r12, 80(%rax)\n"
	"	mov %r13, 88(%rax)\n"
	"	mov %r14, 96(%rax)\n"
	"	mov %r15, 104(%rax)\n"
	".irp r, r15, r14, r13, r12, rbp, rbx\n"
	"	pop %\\r\n"
	".endr\n"
	"	ret\n");

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct sigaction skip = {.sa_sigaction = after_ud2, .sa_flags = SA_SIGINFO};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}}, stop = {{0, 0}, {0, 0}};
	uint64_t in[COUNT], out[COUNT], wrong = 0;
	timer_t timer;

	sigaction(SIGILL, &skip, NULL);
	sigaction(SIGUSR1, &action, NULL);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &period, NULL))
		return 1;
	while (signals < SIGNALS && !wrong) {
		for (int i = 0; i < COUNT; i++)
			in[i] = 0x5a00000000000000 + ((uint64_t)signals << 8) + (uint64_t)i;
		fault(in, out);
		for (int i = 0; i < COUNT; i++)
			if (in[i] != out[i] && ++wrong)
				printf("# register %d is %#lx, not %#lx\n", i, out[i], in[i]);
	}
	timer_settime(timer, 0, &stop, NULL);
	CHECK(wrong == 0, "interrupts leave all registers of a program as they are");
	return tap_done();
}
