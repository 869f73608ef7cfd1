/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses to protected memory, and the details of the SIGSEGV that they cause. */
#ifndef NABLA_PROTECT_H
#define NABLA_PROTECT_H

#include "util.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { KB = 1024, MB = 1024 * 1024, PAGE = 4096 };

static sigjmp_buf back;
static volatile int seen_code;
static char *volatile seen_address;

static inline void leave(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	seen_code = info->si_code;
	seen_address = info->si_addr;
	siglongjmp(back, 1);
}

static inline void handle(int flags)
{
	struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO | flags};
	sigaction(SIGSEGV, &action, NULL);
}

static inline void *map(size_t size, int protection)
{
	return mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static inline int all_bytes(const void *at, size_t size, unsigned char value)
{
	const unsigned char *p = at;
	for (size_t i = 0; i < size; i++)
		if (p[i] != value)
			return 0;
	return 1;
}

/* The result of a write to read-only memory. */
static int refused = SEGV_ACCERR;

static inline void look_for_read_only(void)
{
	char line[2048] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (no_mmu() && read(fd, line, sizeof line - 1) >= 0 && !strstr(line, "protect=all"))
		refused = 0;
	close(fd);
}

/* 0 if the access succeeds, else the si_code of its SIGSEGV, or -1 if that names another address. */
__attribute__((noinline, unused)) static int reading(const volatile char *at)
{
	seen_address = NULL;
	if (!sigsetjmp(back, 1)) {
		(void)*at;
		return 0;
	}
	return seen_address == at ? seen_code : -1;
}

__attribute__((noinline, unused)) static int writing(volatile char *at)
{
	seen_address = NULL;
	if (!sigsetjmp(back, 1)) {
		*at = *at; // two accesses, as it is volatile
		return 0;
	}
	return seen_address == at ? seen_code : -1;
}

__attribute__((noinline, unused)) static int running(char *at)
{
	seen_address = NULL;
	if (!sigsetjmp(back, 1)) {
		((void (*)(void))at)();
		return 0;
	}
	return seen_address == at ? seen_code : -1;
}

#endif
