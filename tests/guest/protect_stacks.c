// SPDX-License-Identifier: Apache-2.0
// The guards below stacks: endless recursion is the program's SIGSEGV, and a handler on another stack can catch it.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <pthread.h>

__attribute__((noinline)) static int recurse(int depth)
{
	volatile char pad[512];
	memset((void *)pad, depth, sizeof pad);
	return depth == -1 ? 0 : recurse(depth + 1) + pad[depth & 511];
}

static void recurse_on_signal(int signal)
{
	recurse(signal);
}

static void *recurse_in_thread(void *depth)
{
	recurse((int)(long)depth);
	return NULL;
}

/* An alternate stack of 32 KB with a guard below. */
static void alternate_stack(void)
{
	char *p = map(9 * 4 * KB + 32 * KB, PROT_READ | PROT_WRITE);
	mprotect(p, PAGE, PROT_NONE);
	stack_t stack = {.ss_sp = p + PAGE, .ss_size = 8 * 4 * KB + 32 * KB};
	sigaltstack(&stack, NULL);
}

static int role(const char *name)
{
	if (!strcmp(name, "main"))
		recurse(0);
	if (!strcmp(name, "thread")) {
		pthread_t t;
		if (!pthread_create(&t, NULL, recurse_in_thread, NULL))
			pthread_join(t, NULL);
	}
	if (!strcmp(name, "signal stack")) {
		struct sigaction action = {.sa_handler = recurse_on_signal, .sa_flags = SA_ONSTACK};
		alternate_stack();
		sigaction(SIGUSR1, &action, NULL);
		raise(SIGUSR1);
	}
	if (!strcmp(name, "handler without its own stack")) {
		handle(0);
		recurse(0);
	}
	if (!strcmp(name, "handler that recurses too")) {
		struct sigaction action = {.sa_handler = recurse_on_signal, .sa_flags = SA_ONSTACK};
		alternate_stack();
		sigaction(SIGSEGV, &action, NULL);
		recurse(0);
	}
	return 96;
}

__attribute__((noinline)) static int overflow(void)
{
	return sigsetjmp(back, 1) ? 1 : recurse(0);
}

static void *overflow_in_thread(void *unused)
{
	(void)unused;
	alternate_stack();
	return (void *)(long)(overflow() == 1 && overflow() == 1 ? seen_code : 0);
}

static void test_stacks(void)
{
	static const char *const roles[] = {"main", "thread", "signal stack", "handler without its own stack",
					    "handler that recurses too"};
	char name[128];
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		snprintf(name, sizeof name, "endless recursion (%s) is this program's SIGSEGV", roles[i]);
		CHECK(killed_by(run_role(roles[i], NULL), SIGSEGV), name);
	}
	char here;
	alternate_stack();
	handle(SA_ONSTACK);
	int good = 0;
	for (int i = 0; i < 5; i++)
		good += overflow() == 1 && seen_address < &here;
	CHECK(good == 5, "a handler on an alternate stack catches it, five times");
	CHECK(seen_code == SEGV_MAPERR, "on the first thread's stack it is SEGV_MAPERR");
	pthread_t t;
	void *result = NULL;
	CHECK(!pthread_create(&t, NULL, overflow_in_thread, NULL) && !pthread_join(t, &result) &&
		      (long)result == SEGV_ACCERR, "on another thread's SEGV_ACCERR");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return role(argv[1]);
	handle(0);
	test_stacks();
	return tap_done();
}
