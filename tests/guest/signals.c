// SPDX-License-Identifier: Apache-2.0
// Signals: handlers and their arguments, masks, nesting, alternate stacks. signal_waits.c tests waiting for signals.
#define _GNU_SOURCE
#include "handlers.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

static volatile int depth, deepest;

static void test_handlers(void)
{
	handle(SIGUSR1, counting, 0);
	CHECK(raise(SIGUSR1) == 0 && count == 1 && last == SIGUSR1, "raise runs the handler before it returns");
	CHECK(kill(getpid(), SIGUSR1) == 0 && count == 2, "kill to oneself too");

	handle_info(SIGUSR2, 0);
	kill(getpid(), SIGUSR2);
	CHECK(count == 1 && info_seen.si_signo == SIGUSR2 && info_seen.si_code == SI_USER &&
		      info_seen.si_pid == getpid() && info_seen.si_uid == getuid(), "siginfo of kill");
	union sigval value = {.sival_int = 4711};
	sigqueue(getpid(), SIGUSR2, value);
	CHECK(count == 2 && info_seen.si_code == SI_QUEUE && info_seen.si_value.sival_int == 4711,
	      "siginfo of sigqueue with its value");

	handle(SIGUSR1, SIG_IGN, 0);
	CHECK(raise(SIGUSR1) == 0 && count == 0, "an ignored signal does nothing");
	handle(SIGUSR1, counting, SA_RESETHAND);
	raise(SIGUSR1);
	struct sigaction now;
	CHECK(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == SIG_DFL && count == 1, "SA_RESETHAND resets");
	CHECK(sigaction(SIGKILL, &now, NULL) == -1 && errno == EINVAL, "SIGKILL cannot be handled");
}

static void test_real_time(void)
{
	sigset_t set = set_of(SIGRTMIN + 1);
	handle_info(SIGRTMIN + 1, 0);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 1; i <= 5; i++)
		sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
	sigset_t pending;
	sigpending(&pending);
	CHECK(count == 0 && sigismember(&pending, SIGRTMIN + 1), "a blocked real-time signal is pending");
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CHECK(count == 5 && info_seen.si_value.sival_int == 5, "five queued ones arrive, in order");
}

static void nest(int signal)
{
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (depth < 20)
		raise(signal);
	depth--;
}

static void other_while_in_handler(int signal)
{
	(void)signal;
	raise(SIGUSR2);
	depth = count; // 1 when SIGUSR2 was taken inside this handler
}

static void test_masks(void)
{
	sigset_t set = set_of(SIGUSR1), old;
	handle(SIGUSR1, counting, 0);
	sigprocmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	raise(SIGUSR1);
	CHECK(count == 0, "a blocked signal waits");
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK(count == 1, "and comes once when unblocked");

	deepest = depth = 0;
	handle(SIGUSR1, nest, SA_NODEFER);
	raise(SIGUSR1);
	CHECK(deepest == 20 && depth == 0, "20 nested handlers with SA_NODEFER");
	deepest = depth = 0;
	handle(SIGUSR1, counting, 0);

	struct sigaction action = {.sa_handler = other_while_in_handler};
	handle(SIGUSR2, counting, 0);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	CHECK(depth == 1 && count == 1, "another signal interrupts a handler");
	action.sa_mask = set_of(SIGUSR2);
	sigaction(SIGUSR1, &action, NULL);
	count = depth = 0;
	raise(SIGUSR1);
	CHECK(depth == 0 && count == 1, "unless sa_mask holds it back until the handler is done");
}

static volatile long stack_at;
static sigjmp_buf back;

static void note_stack(int signal)
{
	(void)signal;
	stack_at = (long)&signal;
	count++;
}

static void jump_out(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static char alternate[65536];

static int on_alternate(long address)
{
	return address > (long)alternate && address < (long)alternate + (long)sizeof alternate;
}

__attribute__((noinline)) static int jump_from_handler(void)
{
	if (!sigsetjmp(back, 1)) {
		raise(SIGUSR1);
		return 0;
	}
	return 1;
}

static void test_alternate_stack(void)
{
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
	CHECK(sigaltstack(&stack, NULL) == 0, "sigaltstack");
	handle(SIGUSR1, note_stack, SA_ONSTACK);
	raise(SIGUSR1);
	CHECK(on_alternate(stack_at), "a handler runs there");
	handle(SIGUSR1, note_stack, 0);
	raise(SIGUSR1);
	CHECK(!on_alternate(stack_at), "without SA_ONSTACK it does not");
	handle(SIGUSR1, jump_out, SA_ONSTACK);
	int good = 0;
	for (int i = 0; i < 100; i++)
		good += jump_from_handler();
	CHECK(good == 100, "100 times siglongjmp out of it");
	sigaltstack(NULL, &old);
	CHECK(old.ss_sp == alternate && old.ss_flags == 0, "sigaltstack reports that the stack is not in use");
	stack.ss_flags = SS_DISABLE;
	CHECK(sigaltstack(&stack, NULL) == 0, "and is switched off");
	stack.ss_flags = 0;
	stack.ss_size = 512;
	CHECK(sigaltstack(&stack, NULL) == -1 && errno == ENOMEM, "a stack too small: ENOMEM");
}

static void change_context(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	(void)signal;
	(void)info;
	u->uc_mcontext.gregs[REG_R12] = 0x77;
	sigaddset(&u->uc_sigmask, SIGUSR2); // the mask that returning installs
}

static void test_context(void)
{
	struct sigaction action = {.sa_sigaction = change_context, .sa_flags = SA_SIGINFO};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval timer = {{0, 0}, {0, 5000}};
	setitimer(ITIMER_REAL, &timer, NULL);
	long r12 = 0;
	__asm__ volatile("xor %%r12, %%r12\n 1: test %%r12, %%r12\n jz 1b\n mov %%r12, %0" : "=r"(r12) : : "r12", "cc");
	CHECK(r12 == 0x77, "a handler changes a register of the code it interrupted");
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	CHECK(sigismember(&mask, SIGUSR2), "and its signal mask");
	sigemptyset(&mask);
	sigprocmask(SIG_SETMASK, &mask, NULL);
}

static volatile int spinning, stop;

static void *spin(void *unused)
{
	spinning = 1;
	while (!stop)
		;
	return unused;
}

static pthread_t handled_in;

static void note_thread(int signal)
{
	(void)signal;
	handled_in = pthread_self();
	count++;
}

static void test_threads(void)
{
	pthread_t spinner;
	handle(SIGUSR1, note_thread, 0);
	pthread_create(&spinner, NULL, spin, NULL);
	wait_for(&spinning, 20000);
	pthread_kill(spinner, SIGUSR1);
	wait_for(&count, 20000);
	CHECK(count == 1 && pthread_equal(handled_in, spinner), "pthread_kill reaches a thread that only spins");
	stop = 1;
	pthread_join(spinner, NULL);
}

int main(void)
{
	test_handlers();
	test_real_time();
	test_masks();
	test_alternate_stack();
	test_context();
	test_threads();
	return tap_done();
}
