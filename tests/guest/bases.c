// SPDX-License-Identifier: Apache-2.0
// Values of programs that the kernel loads into the processor: segment bases, vector state, flags. If the processor
// refuses a value, Linux returns an error, or the program receives a signal.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <sched.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <ucontext.h>

static const unsigned long wrong[] = {1UL << 47, 1UL << 63, 0x7ffffffff000, 0xffff800000000000, -1UL, -4096UL};

static void test_own(void)
{
	int refused = 0;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		refused += syscall(SYS_arch_prctl, 0x1001, wrong[i]) == -1 && errno == EPERM;
		refused += syscall(SYS_arch_prctl, 0x1002, wrong[i]) == -1 && errno == EPERM;
	}
	CHECK(refused == 2 * ARRAY_SIZE(wrong), "arch_prctl: EPERM for bases that no process has");
	unsigned long gs = 1;
	CHECK(syscall(SYS_arch_prctl, 0x1001, 0x12345678) == 0 && syscall(SYS_arch_prctl, 0x1004, &gs) == 0 &&
		      gs == 0x12345678,
	      "and others are set");
	syscall(SYS_arch_prctl, 0x1001, 0);
}

static void test_clone(void)
{
	static char stack[16384] __attribute__((aligned(16)));
	int refused = 0;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		long result;
		register long r10 __asm__("r10") = 0;
		register long r8 __asm__("r8") = wrong[i];
		__asm__ volatile("syscall"
				 : "=a"(result)
				 : "0"((long)SYS_clone), "D"((long)(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SETTLS)),
				   "S"(stack + sizeof stack), "d"(0L), "r"(r10), "r"(r8)
				 : "rcx", "r11", "memory");
		refused += result == -EPERM;
	}
	CHECK(refused == ARRAY_SIZE(wrong), "clone with CLONE_SETTLS: EPERM");
}

static int be_traced(void)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
	return 42;
}

static void test_traced(void)
{
	struct user_regs_struct regs, before;
	struct user_fpregs_struct fp;
	pid_t pid = start_role("traced", "");
	int refused = 0, status = 0;
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "a traced child stops");
	CHECK(ptrace(PTRACE_GETREGS, pid, 0, &before) == 0, "its registers");
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		refused += ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.fs_base), wrong[i]) == -1 && errno == EIO;
		refused += ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.gs_base), wrong[i]) == -1 && errno == EIO;
		regs = before;
		regs.fs_base = wrong[i];
		refused += ptrace(PTRACE_SETREGS, pid, 0, &regs) == -1 && errno == EIO;
	}
	CHECK(refused == 3 * ARRAY_SIZE(wrong), "POKEUSER and SETREGS: EIO for bases that no process has");
	CHECK(ptrace(PTRACE_SETREGS, pid, 0, &before) == 0, "SETREGS with what there was");

	CHECK(ptrace(PTRACE_GETFPREGS, pid, 0, &fp) == 0 && fp.mxcsr == 0x1f80, "GETFPREGS");
	fp.mxcsr = 0xffffffff;
	CHECK(ptrace(PTRACE_SETFPREGS, pid, 0, &fp) == -1 && errno == EINVAL, "bits that MXCSR does not have: EINVAL");
	fp.mxcsr = 0x1f80;
	fp.xmm_space[5] = 0x12345678;
	CHECK(ptrace(PTRACE_SETFPREGS, pid, 0, &fp) == 0, "SETFPREGS");
	memset(&fp, 0, sizeof fp);
	CHECK(ptrace(PTRACE_GETFPREGS, pid, 0, &fp) == 0 && fp.xmm_space[5] == 0x12345678, "is kept");
	CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0 && exited_with(wait_status(pid), 42), "the child continues");
}

/* How the handler damages the frame that it returns through. */
static volatile int damage;

static void handler(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	unsigned int *state = (unsigned int *)uc->uc_mcontext.fpregs;
	(void)number;
	(void)info;
	switch (damage) {
	case 1:
		state[6] = state[7] = 0xffffffff; /* MXCSR and its mask */
		break;
	case 2:
		memset(state + 128, 0xff, 64); /* the header of the state */
		break;
	case 3:
		uc->uc_mcontext.fpregs = (void *)(1UL << 63);
		break;
	case 4:
		uc->uc_mcontext.gregs[REG_RIP] = 1UL << 63;
		break;
	case 5:
		uc->uc_mcontext.gregs[REG_RSP] = 1UL << 63;
		break;
	case 6:
		uc->uc_mcontext.gregs[REG_EFL] = -1L & ~0x100L;
		break;
	}
}

static int return_through(const char *how)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	damage = atoi(how);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	__asm__ volatile("pushfq\n	andl $~0x44400, (%%rsp)\n	popfq" : : : "memory", "cc");
	return 0;
}

static void test_frames(void)
{
	char how[] = "0";
	for (; *how <= '6'; ++*how) {
		int status = run_role("return", how);
		/* Linux masks invalid bits if possible, and otherwise kills the program. */
		CHECK(exited_with(status, 0) || killed_by(status, SIGSEGV) || killed_by(status, SIGBUS),
		      "a damaged frame is its program's own problem");
	}
	CHECK(getppid() > 0, "the VM is still there");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "traced"))
		return be_traced();
	if (is_role(argc, argv, "return"))
		return return_through(argv[2]);
	test_own();
	test_clone();
	test_traced();
	test_frames();
	return tap_done();
}
