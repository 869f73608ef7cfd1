/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the tests of shared mappings: a file to map, and accesses that may raise a signal. */
#ifndef NABLA_MAPPING_H
#define NABLA_MAPPING_H

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE };

static const char *directory = "/tmp";
static char path[256];

static inline int new_file(off_t size)
{
	snprintf(path, sizeof path, "%s/shared-XXXXXX", directory);
	int fd = mkstemp(path);
	if (fd >= 0 && size && ftruncate(fd, size))
		return -1;
	return fd;
}

static inline void drop(int fd)
{
	close(fd);
	unlink(path);
}

static inline char *map(int fd, size_t size, off_t at)
{
	return mmap(NULL, size, RW, MAP_SHARED, fd, at);
}

static sigjmp_buf back;
static volatile sig_atomic_t code_seen;

static inline void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)context;
	code_seen = info->si_code;
	siglongjmp(back, signal);
}

/* The signal that reading (or writing, if `value` is not negative) this byte raises; 0: none. */
static inline int touch(volatile char *at, int value)
{
	int signal = sigsetjmp(back, 1);
	if (signal)
		return signal;
	if (value < 0)
		(void)*at;
	else
		*at = (char)value;
	return 0;
}

/* Makes a wrong access a result of touch(). */
static inline void catch_faults(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

#endif
