// SPDX-License-Identifier: Apache-2.0
// A program that makes memory inaccessible that it needs, or that its kernel reads on its behalf: in each case this
// program ends by SIGSEGV or gets an error, and the VM continues.
#define _GNU_SOURCE
#include "gate.h"
#include "tap.h"
#include "util.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>

enum { PAGE = 4096 };

static char *page_of(const void *at)
{
	return (char *)((uintptr_t)at & ~(uintptr_t)(PAGE - 1));
}

static char *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void nothing(int signal)
{
	(void)signal;
}

static void hide_stack(void)
{
	char here;
	alarm_every_us(1000);
	signal(SIGALRM, nothing);
	mprotect(page_of(&here) - PAGE, 2 * PAGE, PROT_NONE);
	for (;;)
		getppid();
}

/* A signal comes while the stack that it should use is hidden. */
static void hide_stack_from_handler(void)
{
	char *p = map(8 * PAGE);
	stack_t stack = {.ss_sp = p, .ss_size = 8 * PAGE};
	struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_ONSTACK};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	mprotect(p, 8 * PAGE, PROT_NONE);
	raise(SIGUSR1);
}

/* Only the upper half of the signal's frame, where the vector registers are. */
static void hide_half_of_a_frame(void)
{
	char *p = map(8 * PAGE);
	stack_t stack = {.ss_sp = p, .ss_size = 8 * PAGE};
	struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_ONSTACK};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	mprotect(p + 7 * PAGE, PAGE, PROT_NONE);
	raise(SIGUSR1);
}

static void hide_own_frame(int signal)
{
	char here;
	(void)signal;
	mprotect(page_of(&here), PAGE, PROT_NONE);
}

static void hide_code(void)
{
	mprotect(page_of((void *)(uintptr_t)hide_code), PAGE, PROT_NONE);
	for (;;)
		getppid();
}

static void hide_everything(void)
{
	char line[256];
	unsigned long start, end, at[256][2];
	int n = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	while (f && n < 256 && fgets(line, sizeof line, f))
		n += sscanf(line, "%lx-%lx", &at[n][0], &at[n][1]) == 2;
	for (int i = 0; i < n; i++) {
		start = at[i][0];
		end = at[i][1];
		mprotect((void *)start, end - start, PROT_NONE);
	}
}

static void sigreturn_from_hidden(void)
{
	char *p = map(2 * PAGE);
	mprotect(p, 2 * PAGE, PROT_NONE);
	__asm__ volatile("mov %0, %%rsp\n mov $15, %%eax\n syscall" : : "r"(p + 64) : "memory");
}

static void *hide_other(void *at)
{
	mprotect(page_of(at) - PAGE, 2 * PAGE, PROT_NONE);
	return NULL;
}

static void hide_stack_of_another_thread(void)
{
	char here;
	pthread_t t;
	if (!pthread_create(&t, NULL, hide_other, &here))
		for (;;)
			sched_yield();
}

static void unmap_stack_of_another_thread(void)
{
	char *p = map(64 * PAGE);
	pthread_attr_t attributes;
	pthread_t t;
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, p, 64 * PAGE);
	pthread_create(&t, &attributes, (void *(*)(void *))(void *)hide_stack, NULL);
	munmap(p, 64 * PAGE);
	for (;;)
		sched_yield();
}

static void handler_hides_its_frame(void)
{
	struct sigaction action = {.sa_handler = hide_own_frame};
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
}

static const struct {
	const char *name;
	void (*work)(void);
} roles[] = {
	{"its stack", hide_stack},
	{"its signal stack", hide_stack_from_handler},
	{"half of a signal's frame", hide_half_of_a_frame},
	{"the frame of a running handler", handler_hides_its_frame},
	{"its code", hide_code},
	{"all of its memory", hide_everything},
	{"the frame that sigreturn reads", sigreturn_from_hidden},
	{"the stack of another thread", hide_stack_of_another_thread},
	{"the stack of another thread, by munmap", unmap_stack_of_another_thread},
};

static void test_roles(void)
{
	char name[128];
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		snprintf(name, sizeof name, "a program that hides %s is killed, alone", roles[i].name);
		CHECK(killed_by(run_role(roles[i].name, NULL), SIGSEGV), name);
	}
}

/* The kernel's write at a thread's end, after which nobody can receive an error. */
static int leave_pointers(void *hidden)
{
	syscall(SYS_set_tid_address, hidden);
	syscall(SYS_set_robust_list, hidden, 24);
	_exit(7);
}

static void test_pointers(void)
{
	char *p = map(PAGE);
	mprotect(p, PAGE, PROT_NONE);
	CHECK(exited_with(run_role("pointers", NULL), 7), "pointers that the kernel follows at a program's end");
	char *stack = map(16 * PAGE);
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID;
	pid_t pid = clone(leave_pointers, stack + 16 * PAGE, flags | SIGCHLD, p, p, NULL, p);
	CHECK(pid > 0 ? exited_with(wait_status(pid), 7) : errno == EFAULT, "and those of clone()");
	munmap(stack, 16 * PAGE);
	munmap(p, PAGE);
}

static void test_foreign(void)
{
	static const uintptr_t places[] = {0x1000, 0x60000000, 0x60001000, 0x60400000, 0x7fff00000000, 1UL << 63, -PAGE};
	int refused = 0, wide = 0;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		for (int protection = 0; protection < 8; protection++)
			refused += syscall(SYS_mprotect, places[i], PAGE, protection) == -1;
	}
	if (no_mmu())
		CHECK(refused == 8 * (int)ARRAY_SIZE(places), "memory that is not the program's cannot be protected");
	char *p = map(4 * PAGE);
	munmap(p + 2 * PAGE, 2 * PAGE);
	for (int i = 14; i < 64; i++)
		wide += syscall(SYS_mprotect, p, 1UL << i, PROT_NONE) == -1;
	CHECK(wide >= 40, "nor can what lies behind its memory");
	CHECK(syscall(SYS_mprotect, p, -1UL, PROT_NONE) == -1 && syscall(SYS_mprotect, 0, -4096UL, PROT_NONE) == -1,
	      "nor all there is");
	CHECK(syscall(SYS_mprotect, p, PAGE, 0x100) == -1 && errno == EINVAL, "an unknown right: EINVAL");
}

static sigjmp_buf back;
static volatile uintptr_t seen_rip;

static void leave(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	(void)signal;
	(void)info;
	seen_rip = u->uc_mcontext.gregs[REG_RIP];
	siglongjmp(back, 1);
}

/* The kernel's entry with a return address in hidden memory, while signals interrupt its first instructions. */
static void test_entry(void)
{
	unsigned long gate = getauxval(AT_SYSINFO);
	if (!gate) {
		tap_skip("a return address that is hidden", "this kernel has no entry to jump to");
		return;
	}
	struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &action, NULL);
	signal(SIGALRM, nothing);
	char *p = map(2 * PAGE);
	mprotect(p, PAGE, PROT_NONE);
	alarm_every_us(200);
	volatile int right = 0;
	for (volatile int i = 0; i < 100000; i++) {
		uintptr_t to = (uintptr_t)p + (i % 3 == 2 ? PAGE - 1 : i % 3 * 8);
		if (!sigsetjmp(back, 0))
			__asm__ volatile("lea -128(%%rsp), %%rsp\n mov %1, %%rcx\n mov $110, %%eax\n jmp *%0"
					 : : "r"(gate), "r"(to) : "rax", "rcx", "r11", "memory");
		right += seen_rip == to;
		sigset_t one;
		sigemptyset(&one);
		sigaddset(&one, SIGSEGV);
		sigprocmask(SIG_UNBLOCK, &one, NULL);
	}
	alarm_every_us(0);
	CHECK(right == 100000, "a return address that is hidden: SIGSEGV there, 100000 times");
	munmap(p, 2 * PAGE);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "pointers")) {
		char *p = map(PAGE);
		mprotect(p, PAGE, PROT_NONE);
		leave_pointers(p);
	}
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(roles); i++)
		if (!strcmp(argv[1], roles[i].name)) {
			roles[i].work();
			return 96;
		}
	test_roles();
	test_pointers();
	test_foreign();
	test_entry();
	return tap_done();
}
