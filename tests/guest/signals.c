// SPDX-License-Identifier: Apache-2.0
// Signals: handlers and their arguments, masks, restart, nesting, alternate stacks, waiting for them, timers.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

static volatile int count, last, depth, deepest;
static volatile siginfo_t info_seen;
static volatile double fraction;

static void counting(int signal)
{
	count++;
	last = signal;
	fraction = signal / 3.0;
}

static void with_info(int signal, siginfo_t *info, void *context)
{
	(void)context;
	count++;
	last = signal;
	info_seen = *info;
}

static void handle(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(signal, &action, NULL);
	count = last = 0;
}

static void handle_info(int signal, int flags)
{
	struct sigaction action = {.sa_sigaction = with_info, .sa_flags = SA_SIGINFO | flags};
	sigaction(signal, &action, NULL);
	count = last = 0;
}

static sigset_t set_of(int signal)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signal);
	return set;
}

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

static int64_t started;

static void *poke_after_50ms(void *target)
{
	sleep_ms(50);
	pthread_kill(*(pthread_t *)target, SIGUSR1);
	return NULL;
}

static void *write_after_100ms(void *fd)
{
	sleep_ms(100);
	if (write((int)(long)fd, "x", 1) != 1)
		return fd;
	return NULL;
}

static void test_interruption(void)
{
	int fds[2];
	char byte;
	pthread_t self = pthread_self(), poker, writer;
	if (pipe(fds))
		return;
	handle(SIGUSR1, counting, 0);
	pthread_create(&poker, NULL, poke_after_50ms, &self);
	CHECK(read(fds[0], &byte, 1) == -1 && errno == EINTR && count == 1, "a signal interrupts read: EINTR");
	pthread_join(poker, NULL);

	handle(SIGUSR1, counting, SA_RESTART);
	pthread_create(&poker, NULL, poke_after_50ms, &self);
	pthread_create(&writer, NULL, write_after_100ms, (void *)(long)fds[1]);
	CHECK(read(fds[0], &byte, 1) == 1 && byte == 'x' && count == 1, "with SA_RESTART read goes on");
	pthread_join(poker, NULL);
	pthread_join(writer, NULL);

	pthread_create(&poker, NULL, poke_after_50ms, &self);
	struct pollfd poll_fd = {fds[0], POLLIN, 0};
	CHECK(poll(&poll_fd, 1, 5000) == -1 && errno == EINTR, "poll is interrupted even so");
	pthread_join(poker, NULL);

	started = now_ns();
	pthread_create(&poker, NULL, poke_after_50ms, &self);
	struct timespec left = {1, 0};
	CHECK(nanosleep(&left, &left) == -1 && errno == EINTR && left.tv_sec == 0 && left.tv_nsec > 500000000,
	      "nanosleep is interrupted and returns the remaining time");
	pthread_join(poker, NULL);

	pid_t child = start_role("sleep", "200");
	pthread_create(&poker, NULL, poke_after_50ms, &self);
	int status = 0;
	CHECK(waitpid(child, &status, 0) == child && exited_with(status, 0), "waitpid is restarted");
	pthread_join(poker, NULL);
	close(fds[0]);
	close(fds[1]);
}

static void test_timers(void)
{
	handle(SIGALRM, counting, 0);
	started = now_ns();
	struct itimerval timer = {{0, 0}, {0, 50000}};
	setitimer(ITIMER_REAL, &timer, NULL);
	CHECK(pause() == -1 && errno == EINTR && last == SIGALRM, "setitimer and pause");
	CHECK(now_ns() - started >= 49000000, "not too early");
	CHECK(alarm(100) == 0 && alarm(0) == 100, "alarm returns the remaining time");
	count = 0;
	alarm(1);
	pause();
	CHECK(count == 1, "alarm(1)");

	// Into a loop that makes no system call, with a floating point sum that must come out right.
	count = 0;
	timer.it_value.tv_usec = 20000;
	setitimer(ITIMER_REAL, &timer, NULL);
	double sum = 0;
	long turns = 0;
	while (!count) {
		sum += 1.5;
		turns++;
		__asm__ volatile("" : "+x"(sum));
	}
	CHECK(sum == turns * 1.5, "a timer signal into a busy loop; its sum is right");

	handle(SIGVTALRM, counting, 0);
	timer.it_value.tv_usec = 20000;
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
	for (int64_t end = now_ns() + 20000000000; !count && now_ns() < end;)
		;
	CHECK(count == 1, "ITIMER_VIRTUAL counts processor time");
}

static void test_waiting(void)
{
	sigset_t set = set_of(SIGUSR1), old;
	sigprocmask(SIG_BLOCK, &set, &old);
	handle(SIGUSR1, counting, 0);
	int got = 0;
	raise(SIGUSR1);
	CHECK(sigwait(&set, &got) == 0 && got == SIGUSR1 && count == 0, "sigwait takes a pending signal");

	pthread_t self = pthread_self(), poker;
	pthread_create(&poker, NULL, poke_after_50ms, &self);
	siginfo_t info;
	CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_code == SI_TKILL, "sigwaitinfo waits for one");
	pthread_join(poker, NULL);
	struct timespec wait = {0, 30000000};
	CHECK(sigtimedwait(&set, &info, &wait) == -1 && errno == EAGAIN, "sigtimedwait gives up in time");

	pthread_create(&poker, NULL, poke_after_50ms, &self);
	CHECK(sigsuspend(&old) == -1 && errno == EINTR && count == 1, "sigsuspend lets it in");
	pthread_join(poker, NULL);
	raise(SIGUSR1);
	CHECK(count == 1, "and blocks it again");
	sigprocmask(SIG_SETMASK, &old, NULL);
	CHECK(count == 2, "until the mask is restored");
}

static void test_child_signal(void)
{
	handle_info(SIGCHLD, SA_RESTART);
	pid_t pid = start_role("exit", "9");
	CHECK(exited_with(wait_status(pid), 9), "a child ends");
	CHECK(count == 1 && info_seen.si_pid == pid && info_seen.si_code == CLD_EXITED && info_seen.si_status == 9,
	      "SIGCHLD reports the child and its status");
	count = 0;
	pid = start_role("sleep", "10000");
	kill(pid, SIGKILL);
	wait_status(pid);
	CHECK(count == 1 && info_seen.si_code == CLD_KILLED && info_seen.si_status == SIGKILL, "also of a killed one");
	struct sigaction action = {.sa_handler = SIG_IGN};
	sigaction(SIGCHLD, &action, NULL);
	pid = start_role("exit", "0");
	CHECK(waitpid(pid, NULL, 0) == -1 && errno == ECHILD, "SIGCHLD ignored: no zombie, ECHILD");
	signal(SIGCHLD, SIG_DFL);
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

static volatile int stop;

static void *spin(void *unused)
{
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
	sleep_ms(20);
	pthread_kill(spinner, SIGUSR1);
	wait_for(&count, 2000);
	CHECK(count == 1 && pthread_equal(handled_in, spinner), "pthread_kill reaches a thread that only spins");
	stop = 1;
	pthread_join(spinner, NULL);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	if (is_role(argc, argv, "sleep")) {
		sleep_ms(atoi(argv[2]));
		return 0;
	}
	test_handlers();
	test_real_time();
	test_masks();
	test_alternate_stack();
	test_interruption();
	test_timers();
	test_waiting();
	test_child_signal();
	test_context();
	test_threads();
	return tap_done();
}
