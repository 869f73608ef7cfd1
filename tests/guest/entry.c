// SPDX-License-Identifier: Apache-2.0
// The kernel's entry by AT_SYSINFO, used directly: results, restart after signals, vfork, and that nothing is written
// below the caller's stack pointer.
#define _GNU_SOURCE
#include "gate.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/syscall.h>

static volatile int interrupted;

static void on_signal(int signal)
{
	(void)signal;
	interrupted++;
}

static int fds[2];

static void *poke_then_write(void *target)
{
	for (int i = 0; i < 5; i++) {
		wait_until_asleep(getpid());
		pthread_kill(*(pthread_t *)target, SIGUSR1);
		for (int64_t end = now_ns() + 20000000000; interrupted <= i && now_ns() < end;)
			sleep_ms(1);
	}
	wait_until_asleep(getpid());
	return write(fds[1], "r", 1) == 1 ? NULL : target;
}

/* The red zone over a call that blocks, is interrupted and restarted. */
static long read_keeping_red_zone(unsigned long gate, int fd, char *byte, int *kept)
{
	long result;
	register unsigned long r11 __asm__("r11") = gate;
	__asm__ volatile("movq $0x12345678, -8(%%rsp)\n movq $0x23456789, -64(%%rsp)\n movq $0x3456789a, -128(%%rsp)\n"
			 GATE_INLINE
			 "xor %%r8d, %%r8d\n"
			 "cmpq $0x12345678, -8(%%rsp)\n jne 1f\n cmpq $0x23456789, -64(%%rsp)\n jne 1f\n"
			 "cmpq $0x3456789a, -128(%%rsp)\n jne 1f\n inc %%r8d\n 1: mov %%r8d, %1\n"
			 : "=a"(result), "=m"(*kept), "+r"(r11)
			 : "0"((long)SYS_read), "D"((long)fd), "S"(byte), "d"(1L)
			 : "rcx", "r8", "memory", "cc");
	return result;
}

static void test(unsigned long gate, const char *how)
{
	char name[128], byte = 0;
	int kept = 0;
	pthread_t self = pthread_self(), poker;
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	tap_note("system calls by %s", how);
	CHECK(gate_call(gate, SYS_getpid, 0, 0, 0, 0) == getpid(), "getpid");
	CHECK(gate_call(gate, SYS_close, 999, 0, 0, 0) == -EBADF, "an error comes back negative");
	CHECK(gate_call(gate, 99999, 0, 0, 0, 0) == -ENOSYS, "an unknown number: ENOSYS");
	CHECK(gate_call(gate, -1, 0, 0, 0, 0) == -ENOSYS, "number -1: ENOSYS");
	long wide = gate_call(gate, 1L << 40 | SYS_getpid, 0, 0, 0, 0);
	CHECK(wide == -ENOSYS || wide == getpid(), "a number beyond 32 bits: refused or cut, as kernels differ");

	sigaction(SIGUSR1, &action, NULL);
	interrupted = 0;
	pthread_create(&poker, NULL, poke_then_write, &self);
	long n = read_keeping_red_zone(gate, fds[0], &byte, &kept);
	pthread_join(poker, NULL);
	snprintf(name, sizeof name, "a read restarted after %d signals gets its byte", interrupted);
	CHECK(n == 1 && byte == 'r' && interrupted == 5, name);
	CHECK(kept, "the red zone is untouched by the call, the handlers and the restarts");

	long pid = gate_call(gate, SYS_vfork, 0, 0, 0, 0);
	if (pid == 0)
		gate_call(gate, SYS_exit, 5, 0, 0, 0);
	CHECK(pid > 0 && exited_with(wait_status(pid), 5), "vfork");
}

int main(void)
{
	unsigned long gate = getauxval(AT_SYSINFO);
	if (pipe(fds))
		return 2;
	if (gate)
		test(gate, "AT_SYSINFO");
	else if (no_mmu())
		CHECK(gate, "the kernel gives AT_SYSINFO");
	test(0, "instruction");
	return tap_done();
}
