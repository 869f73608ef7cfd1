// SPDX-License-Identifier: Apache-2.0
// A debugger that writes anything into the registers and the memory of a child and lets it run on.
// Arguments: seed, rounds. The child may die in any way; the kernel and this program may not.
#define _GNU_SOURCE
#include "../util.h"
#include "fuzz.h"

#include <grp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child: floating point, system calls in both ways, signals; until it is killed. */
static void be_traced(void)
{
	word gate = getauxval(AT_SYSINFO);
	volatile double x = 1;
	/* A debugger can turn any call into a signal to everybody: it must not reach the debugger, which is root's. */
	if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
		exit(1);
	alarm(2);
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	kill(getpid(), SIGSTOP);
	for (word n = 0;; n++) {
		x = x * 1.000001 + 1;
		gate_call(n & 1 ? gate : 0, 39, 0, 0, 0, 0);
		if (n % 64 == 0)
			kill(getpid(), SIGUSR1);
		if (n % 64 == 32)
			usleep(1);
	}
}

static void change(pid_t pid)
{
	struct user_regs_struct regs;
	union {
		struct user_fpregs_struct regs;
		uint32_t words[128];
	} fp;
	switch (fuzz_below(6)) {
	case 0:
		if (ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0) {
			((word *)&regs)[fuzz_below(sizeof regs / 8)] = fuzz_outside();
			ptrace(PTRACE_SETREGS, pid, 0, fuzz_one_in(20) ? (void *)fuzz_any() : &regs);
		}
		break;
	case 1:
		if (ptrace(PTRACE_GETFPREGS, pid, 0, &fp) == 0) {
			fp.words[fuzz_one_in(2) ? 6 : fuzz_below(128)] = fuzz_any();
			ptrace(PTRACE_SETFPREGS, pid, 0, fuzz_one_in(20) ? (void *)fuzz_any() : &fp);
		}
		break;
	case 2:
		ptrace(PTRACE_POKEUSER, pid, fuzz_one_in(8) ? fuzz_any() : 8 * fuzz_below(120),
		       fuzz_outside());
		break;
	case 3: /* segment bases, which the kernel loads with instructions that can fault */
		ptrace(PTRACE_POKEUSER, pid,
		       fuzz_one_in(2) ? offsetof(struct user, regs.fs_base) : offsetof(struct user, regs.gs_base),
		       fuzz_outside());
		break;
	case 4:
		ptrace(PTRACE_POKEDATA, pid, fuzz_any(), fuzz_any());
		ptrace(PTRACE_PEEKDATA, pid, fuzz_any(), 0);
		break;
	default: { /* any request except those that detach the child */
		long request = fuzz_one_in(2) ? (long)fuzz_below(40) : (long)(0x4200 + fuzz_below(20));
		char room[4096];
		if (request != PTRACE_DETACH && request != PTRACE_TRACEME && request != PTRACE_KILL)
			ptrace(request, pid, fuzz_any(), fuzz_one_in(2) ? (void *)room : (void *)fuzz_any());
	}
	}
}

static word trace(char *self)
{
	static const int ways[] = {PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP};
	char *child[] = {self, "child", NULL};
	word stops = 0;
	int status;
	pid_t pid;
	if (posix_spawn(&pid, SELF, NULL, NULL, child, environ))
		exit(1);
	for (; stops < 400 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status); stops++) {
		int signal = WSTOPSIG(status);
		for (word n = fuzz_below(3); n; n--)
			change(pid);
		if (signal == SIGSTOP || signal == SIGTRAP || fuzz_one_in(2))
			signal = fuzz_one_in(50) ? (int)fuzz_below(70) : 0;
		if (ptrace(fuzz_pick(ways), pid, 0, signal))
			break;
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return stops;
}

int main(int argc, char **argv)
{
	word seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1, rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 100;
	word stops = 0;
	if (is_role(argc, argv, "child"))
		be_traced();
	fuzz_seed(seed);
	for (word round = 0; round < rounds; round++)
		stops += trace(argv[0]);
	printf("trace: %lu programs, %lu stops\n", rounds, stops);
	return 0;
}
