// SPDX-License-Identifier: Apache-2.0
// Faults of a program are the program's: the right signal with the right details to a handler, or the end of this
// one process. Handlers here leave by siglongjmp or repair the saved registers and return.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile int seen_signal, seen_code;
static void *volatile seen_address;
static volatile long seen_rip, seen_rbx;

static void leave(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	seen_signal = signal;
	seen_code = info->si_code;
	seen_address = info->si_addr;
	seen_rip = u->uc_mcontext.gregs[REG_RIP];
	seen_rbx = u->uc_mcontext.gregs[REG_RBX];
	siglongjmp(back, 1);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
	sigaction(signal, &action, NULL);
}

/* The faults. Each is also a child's role, in which it must end only that process. */
static void read_null(void) { (void)*(volatile char *)0; }
static void write_low(void) { __asm__ volatile("movb $1, 8" : : : "memory"); }
static void write_unmapped(void) { *(volatile char *)0x123456789000 = 1; }
static void touch_non_canonical(void) { *(volatile char *)0x8000000000000000 = 1; }
static void jump_null(void) { ((void (*)(void))0)(); }
static void jump_wild(void) { ((void (*)(void))0x123456789000)(); }
static void jump_non_canonical(void) { __asm__ volatile("jmp *%0" : : "r"(0x8000000000000000)); }
static void divide_by_zero(void)
{
	__asm__ volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov $1, %%eax\n idiv %%ecx" : : : "eax", "ecx", "edx");
}
static void undefined_instruction(void) { __asm__ volatile("ud2"); }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void privileged_instruction(void) { __asm__ volatile("hlt"); }
static void legacy_interrupt(void) { __asm__ volatile("int $0x42"); }
/* A system call as in a 32-bit program. */
static void legacy_system_call(void) { __asm__ volatile("int $0x80" : : "a"(20) : "memory"); }
static void sse_exception(void)
{
	unsigned mxcsr = 0x1f80 & ~0x200; // division by zero unmasked
	double zero = 0, one = 1;
	__asm__ volatile("ldmxcsr %1\n divsd %2, %0" : "+x"(one) : "m"(mxcsr), "x"(zero));
}
static void misaligned(void)
{
	static char data[64] __attribute__((aligned(16)));
	__asm__ volatile("movaps %%xmm0, (%0)" : : "r"(data + 1) : "memory");
}
static void stack_gone(void) { __asm__ volatile("mov $8, %rsp\n push %rax"); }

struct fault {
	const char *name;
	void (*make)(void);
	int signal, code;
	void *address;
};

static const struct fault faults[] = {
	{"read-null", read_null, SIGSEGV, SEGV_MAPERR, (void *)0},
	{"write-low", write_low, SIGSEGV, SEGV_MAPERR, (void *)8},
	{"write-unmapped", write_unmapped, SIGSEGV, SEGV_MAPERR, (void *)0x123456789000},
	{"non-canonical", touch_non_canonical, SIGSEGV, SI_KERNEL, NULL},
	{"jump-null", jump_null, SIGSEGV, SEGV_MAPERR, (void *)0},
	{"jump-wild", jump_wild, SIGSEGV, SEGV_MAPERR, (void *)0x123456789000},
	{"jump-non-canonical", jump_non_canonical, SIGSEGV, SI_KERNEL, NULL},
	{"divide-by-zero", divide_by_zero, SIGFPE, FPE_INTDIV, NULL},
	{"sse-divide", sse_exception, SIGFPE, FPE_FLTDIV, NULL},
	{"undefined-instruction", undefined_instruction, SIGILL, ILL_ILLOPN, NULL},
	{"breakpoint", breakpoint, SIGTRAP, SI_KERNEL, NULL},
	{"privileged-instruction", privileged_instruction, SIGSEGV, SI_KERNEL, NULL},
	{"legacy-interrupt", legacy_interrupt, SIGSEGV, SI_KERNEL, NULL},
	{"legacy-system-call", legacy_system_call, SIGSEGV, SI_KERNEL, NULL},
	{"misaligned-movaps", misaligned, SIGSEGV, SI_KERNEL, NULL},
};

/* Runs it; returns whether a handler left it, which the compiler need not know. */
__attribute__((noinline)) static int caught(void (*make)(void), int signal)
{
	seen_signal = 0;
	if (!sigsetjmp(back, 1))
		make();
	return seen_signal == signal;
}

static void test_handlers(void)
{
	char name[128];
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		const struct fault *f = &faults[i];
		handle(f->signal, leave, 0);
		for (int turn = 0; turn < 2; turn++) {
			snprintf(name, sizeof name, "%s: signal %d reaches the handler%s", f->name, f->signal,
				 turn ? " a second time" : "");
			CHECK(caught(f->make, f->signal), name);
		}
		if (f->signal == SIGSEGV && f->code == SEGV_MAPERR) {
			snprintf(name, sizeof name, "%s: si_addr is the address", f->name);
			CHECK(seen_address == f->address, name);
		}
		if (f->signal == SIGFPE || f->code == SEGV_MAPERR) {
			snprintf(name, sizeof name, "%s: si_code", f->name);
			if (!CHECK(seen_code == f->code, name))
				tap_note("expected %d, found %d", f->code, seen_code);
		}
		signal(f->signal, SIG_DFL);
	}
	unsigned mxcsr = 0x1f80;
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}

/* On an alternate stack, with the ordinary one destroyed. */
static void test_stack_gone(void)
{
	static char alternate[65536];
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
	sigaltstack(&stack, NULL);
	handle(SIGSEGV, leave, SA_ONSTACK);
	CHECK(caught(stack_gone, SIGSEGV), "stack pointer destroyed: the handler runs on the alternate stack");
	signal(SIGSEGV, SIG_DFL);
	stack.ss_flags = SS_DISABLE;
	sigaltstack(&stack, NULL);
}

static void test_context(void)
{
	long at, marker = 0x5ca1ab1e;
	handle(SIGSEGV, leave, 0);
	seen_rip = 0;
	if (!sigsetjmp(back, 1))
		__asm__ volatile("lea 1f(%%rip), %%rax\n mov %%rax, %0\n mov %1, %%rbx\n 1: movb $1, 8"
				 : "=m"(at) : "r"(marker) : "rax", "rbx", "memory");
	CHECK(seen_rip == at, "the saved RIP is that of the faulting instruction");
	CHECK(seen_rbx == marker, "the saved registers are those of the fault, not of the last system call");
	signal(SIGSEGV, SIG_DFL);
}

static volatile int repaired;

static void repair(int signal, siginfo_t *info, void *context)
{
	static char good;
	ucontext_t *u = context;
	(void)signal;
	(void)info;
	u->uc_mcontext.gregs[REG_RDX] = (long)&good;
	repaired++;
}

static void skip_undefined(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	(void)signal;
	(void)info;
	u->uc_mcontext.gregs[REG_RIP] += 2; // the size of ud2
	repaired++;
}

static void test_repair(void)
{
	long rdx = 8, rcx = 0x1234, rax = 0x9abc, r11;
	handle(SIGSEGV, repair, 0);
	repaired = 0;
	__asm__ volatile("mov $0x5678, %%r11\n movb $1, (%1)\n mov %%r11, %0"
			 : "=m"(r11), "+d"(rdx), "+c"(rcx), "+a"(rax) : : "r11", "memory");
	CHECK(repaired == 1 && rdx != 8, "a handler repairs a register, the instruction runs again");
	CHECK(rcx == 0x1234 && r11 == 0x5678 && rax == 0x9abc, "RAX, RCX and R11 are as before");
	signal(SIGSEGV, SIG_DFL);

	handle(SIGILL, skip_undefined, 0);
	repaired = 0;
	for (int i = 0; i < 1000; i++)
		undefined_instruction();
	CHECK(repaired == 1000, "a handler skips 1000 undefined instructions");
	signal(SIGILL, SIG_DFL);
}

static volatile int steps;

static void count_step(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	(void)context;
	steps++;
}

static void test_trap_flag(void)
{
	handle(SIGTRAP, count_step, 0);
	steps = 0;
	repaired = 0;
	__asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n orq $0x100, (%%rsp)\n popfq\n"
			 "nop\n nop\n nop\n"
			 "pushfq\n andq $~0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp\n" : : : "memory", "cc");
	CHECK(steps >= 3 && steps < 20, "the trap flag steps a program through its own handler");

	steps = 0;
	__asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n orq $0x100, (%%rsp)\n popfq\n" : : : "memory", "cc");
	pid_t self = getpid();
	__asm__ volatile("pushfq\n andq $~0x100, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp\n" : : : "memory", "cc");
	CHECK(steps >= 2 && self == getpid(), "also across a system call");
	signal(SIGTRAP, SIG_DFL);
}

/* Alignment checks on while the kernel works for us: its own accesses must not fault. */
static void test_alignment_flag(void)
{
	char text[128] = "";
	pid_t self = getpid(), again;
	alarm_every_us(500);
	struct sigaction action = {.sa_handler = SIG_IGN};
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < 1000; i++) {
		__asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n orq $0x40000, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp\n"
				 : : : "memory", "cc");
		again = getpid();
		__asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n andq $~0x40000, (%%rsp)\n popfq\n lea 128(%%rsp), %%rsp\n"
				 : : : "memory", "cc");
	}
	alarm_every_us(0);
	CHECK(again == self && getcwd(text, sizeof text), "system calls with alignment checks switched on");
}

static void *fault_in_thread(void *unused)
{
	(void)unused;
	write_low();
	return NULL;
}

static int role(const char *name)
{
	if (!strcmp(name, "in-thread")) {
		pthread_t t;
		if (pthread_create(&t, NULL, fault_in_thread, NULL))
			return 98;
		pthread_join(t, NULL);
		return 97;
	}
	if (!strcmp(name, "stack-gone"))
		stack_gone();
	if (!strcmp(name, "blocked")) { // a blocked fault cannot wait: the process ends
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		write_low();
	}
	if (!strcmp(name, "ignored")) {
		signal(SIGSEGV, SIG_IGN);
		write_low();
	}
	if (!strcmp(name, "handler-faults")) {
		handle(SIGSEGV, (void (*)(int, siginfo_t *, void *))(void *)write_low, 0);
		write_low();
	}
	if (!strcmp(name, "returning-handler")) {
		handle(SIGSEGV, count_step, SA_RESETHAND);
		write_low();
	}
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		if (!strcmp(name, faults[i].name))
			faults[i].make();
	return 96;
}

static void test_default_action(void)
{
	static const char *const segv_roles[] = {"in-thread",	   "stack-gone",       "blocked", "ignored",
						 "handler-faults", "returning-handler"};
	char name[128];
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		snprintf(name, sizeof name, "%s without a handler kills only the process", faults[i].name);
		CHECK(killed_by(run_role(faults[i].name, NULL), faults[i].signal), name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(segv_roles); i++) {
		snprintf(name, sizeof name, "SIGSEGV %s kills only the process", segv_roles[i]);
		CHECK(killed_by(run_role(segv_roles[i], NULL), SIGSEGV), name);
	}
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return role(argv[1]);
	test_handlers();
	test_stack_gone();
	test_context();
	test_repair();
	test_default_action();
	test_alignment_flag();
	test_trap_flag();
	return tap_done();
}
