// SPDX-License-Identifier: Apache-2.0
// Damaged signal frames: a handler changes the frame that it returns through, in random places, and the vector state
// behind it. Whatever the frame contains, only this program may die.
// Arguments: seed, rounds. Each round is a child; its end is not judged.
#define _GNU_SOURCE
#include "../util.h"
#include "fuzz.h"

#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* Where the kernel reads: the context behind the handler's argument, and the state that it points to. */
#define CONTEXT (sizeof(ucontext_t))
#define STATE 2700

static void damage(word *words, size_t bytes)
{
	for (word n = 1 + fuzz_below(4); n; n--)
		words[fuzz_below(bytes / sizeof(word))] = fuzz_outside();
}

static void flip(word *words, size_t bytes)
{
	for (word n = 1 + fuzz_below(4); n; n--)
		words[fuzz_below(bytes / sizeof(word))] ^= 1UL << fuzz_below(64);
}

static void handler(int signal, siginfo_t *info, void *context)
{
	ucontext_t *frame = context;
	char *state = (char *)frame->uc_mcontext.fpregs;
	static const int registers[] = {REG_RIP, REG_RSP, REG_EFL, REG_CSGSFS, REG_RAX, REG_RCX};
	(void)signal;
	(void)info;
	switch (fuzz_below(5)) {
	case 0: /* MXCSR and its mask, and the header of the state: what the processor refuses */
		((uint32_t *)state)[6 + fuzz_below(2)] = fuzz_any();
		damage((word *)(state + 512), 64);
		break;
	case 1:
		flip((word *)state, STATE);
		break;
	case 2:
		frame->uc_mcontext.gregs[fuzz_pick(registers)] = fuzz_outside();
		break;
	case 3:
		frame->uc_mcontext.fpregs = (void *)(fuzz_one_in(2) ? fuzz_any() : (word)state + fuzz_below(128));
		break;
	default:
		damage(context, CONTEXT);
	}
}

/* One program's life: nested handlers, on the stack or on another one, until one frame is too bad. */
static void live(word seed)
{
	static char stack[65536];
	stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
	fuzz_seed(seed);
	sigaltstack(&other, NULL);
	for (int number = 1; number < 32; number++) {
		struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
		if (fuzz_one_in(2))
			action.sa_flags |= SA_ONSTACK;
		if (fuzz_one_in(2))
			action.sa_flags |= SA_NODEFER;
		if (number != SIGKILL && number != SIGSTOP && number != SIGSEGV && number != SIGALRM)
			sigaction(number, &action, NULL);
	}
	alarm(2);
	for (int round = 0; round < 50; round++) {
		volatile double sum = round;
		kill(getpid(), fuzz_one_in(2) ? SIGUSR1 : SIGUSR2);
		sum = sum * 1.5 + 1;
		/* The stack pointer itself may lie anywhere when the kernel reads the frame. */
		if (fuzz_one_in(20))
			__asm__ volatile("mov %0, %%rsp\n mov $15, %%eax\n syscall" : : "r"(fuzz_outside()) : "memory");
	}
}

int main(int argc, char **argv)
{
	word seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1, rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 1000;
	word died = 0;
	if (argc > 3) {
		live(seed);
		return 0;
	}
	for (word round = 0; round < rounds; round++) {
		char number[24];
		snprintf(number, sizeof number, "%lu", seed + round);
		char *child[] = {argv[0], number, "1", "child", NULL};
		pid_t pid;
		if (posix_spawn(&pid, SELF, NULL, NULL, child, environ))
			return 1;
		died += wait_status(pid) != 0;
	}
	printf("frames: %lu programs, %lu died\n", rounds, died);
	return 0;
}
