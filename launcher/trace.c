// SPDX-License-Identifier: Apache-2.0
#include "trace.h"

#include "diag.h"
#include "report.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

void trace_warn(void)
{
	note("WARNING: --trace-policy: the policy is not enforced, "
	     "guest programs can do anything on this host that you can");
}

void trace_attach(pid_t pid)
{
	if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL) < 0)
		fail("kernel.yama.ptrace_scope or a container may forbid it",
		     "--trace-policy: cannot trace the VM: %s", strerror(errno));
}

/* The logged address follows the system call instruction; the filter compares the same address. */
static void log_call(pid_t pid)
{
	struct user_regs_struct r;
	if (ptrace(PTRACE_GETREGS, pid, 0, &r) < 0)
		return; /* the VM was killed in the meantime */
	const char *name = call_name(r.orig_rax);
	note("forbidden: %s (%llu) %#llx %#llx %#llx %#llx %#llx %#llx at %#llx", name ? name : "unknown call",
	     (unsigned long long)r.orig_rax, (unsigned long long)r.rdi, (unsigned long long)r.rsi,
	     (unsigned long long)r.rdx, (unsigned long long)r.r10, (unsigned long long)r.r8, (unsigned long long)r.r9,
	     (unsigned long long)r.rip);
}

void trace_step(pid_t pid, int status)
{
	int number = WSTOPSIG(status), event = status >> 16;
	long deliver = 0;
	int request = PTRACE_CONT;
	if (event == PTRACE_EVENT_SECCOMP)
		log_call(pid);
	else if (event == PTRACE_EVENT_STOP && number != SIGTRAP)
		request = PTRACE_LISTEN; /* stay stopped until SIGCONT */
	else if (!event)
		deliver = number;
	/* An error means that the VM is dead, which the next wait reports. */
	ptrace(request, pid, 0, deliver);
}
