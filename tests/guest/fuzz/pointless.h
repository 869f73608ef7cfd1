/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that a fuzzer of system calls leaves out. */
#ifndef NABLA_POINTLESS_H
#define NABLA_POINTLESS_H

#include "fuzz.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int root; /* this process is the superuser's */

/* Signals that nobody can catch, that stop, that belong to libc, or that a fault is meant to end with. */
static int deadly(word signal)
{
	static const char list[] = {4, 5, 7, 8, 9, 11, 19, 20, 21, 22, 31, 32, 33, 34};
	return signal < 64 && memchr(list, (int)signal, sizeof list);
}

/* Calls that are supposed to end this process or the VM, or put it to sleep: they show nothing. */
static int pointless(long n, const word *a)
{
	switch ((int)n) { /* root may do anything to the process that waits for us */
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
	case SYS_process_vm_writev:
	case SYS_prlimit64:
		if (root && (int)a[0] != getpid())
			return 1;
		break;
	case SYS_ptrace:
		if (root && (int)a[1] != getpid())
			return 1;
	}
	switch ((int)n) {
	case SYS_rt_sigreturn: /* frames.c */
	case SYS_clone:
	case SYS_fork:
	case SYS_vfork:
	case SYS_execve: /* exec.c */
	case SYS_execveat:
	case SYS_exit:
	case SYS_exit_group:
	case 435: /* clone3 */
	case SYS_reboot:
	case SYS_mmap: /* map() */
	case SYS_munmap:
	case SYS_brk:
	case SYS_mremap:
	case SYS_rt_sigaction:
	case SYS_alarm:
	case SYS_shmat: /* lays itself over nothing, but is never taken away again */
		return !fuzz_one_in(n == SYS_shmat ? 20 : 1UL << 40);
	case SYS_kill:
	case SYS_tkill:
	case SYS_rt_sigqueueinfo:
		return (int)a[0] <= 1 || deadly((unsigned int)a[1]);
	case SYS_tgkill:
	case SYS_rt_tgsigqueueinfo:
		return deadly((unsigned int)a[2]);
	case SYS_pidfd_send_signal:
		return deadly((unsigned int)a[1]);
	case SYS_ptrace: /* PTRACE_TRACEME: every signal stops it */
		return (int)a[0] == 0;
	case SYS_fcntl: /* F_SETOWN, signals to anybody */
		return root && (a[1] == 8 || a[1] == 10 || a[1] == 15);
	case SYS_prctl: /* PR_SET_SECCOMP */
		return (int)a[0] == 22 && !fuzz_one_in(50);
	case SYS_seccomp:
	case SYS_setrlimit:
	case SYS_prlimit64:
	case SYS_chroot:
	case SYS_pivot_root:
	case SYS_mount:
	case SYS_umount2:
	case SYS_move_mount:
	case SYS_setns:
	case SYS_unshare:
	case SYS_setgroups:
	case SYS_capset:
	case 446: /* landlock_restrict_self: everything fails afterwards */
		return !fuzz_one_in(50);
	case SYS_sync:
	case SYS_syncfs:
		return !fuzz_one_in(50);
	case SYS_close:
	case 436: /* close_range */
		return a[0] < 3 || !fuzz_one_in(4);
	case SYS_dup2:
	case SYS_dup3:
		return (int)a[1] < 3;
	}
	return 0;
}

#endif
