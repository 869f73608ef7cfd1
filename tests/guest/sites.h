/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the tests of patched `syscall` instructions. */
#ifndef NABLA_SITES_H
#define NABLA_SITES_H

#include "util.h"

enum { PAGE = 4096, TURNS = 6, MOV_EAX = 0xb8, JMP = 0xe9 };

typedef long function(long argument);

static inline long call(const void *code, long argument)
{
	return ((function *)(uintptr_t)code)(argument);
}

/* Calls it a few times; returns whether each result was the same. */
static inline int turns(const void *code, long argument, long result)
{
	int good = 0;
	for (int i = 0; i < TURNS; i++)
		good += call(code, argument) == result;
	return good == TURNS;
}

/* Returns whether this kernel turns sites into jumps. */
static inline int kernel_patches(void)
{
	static char line[8192];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (fd >= 0)
		close(fd);
	return no_mmu() && n > 0 && !strstr(line, "um_patch=0") && !strstr(line, "um_patch=n");
}

static inline int first_byte(const void *code)
{
	return *(const volatile unsigned char *)code;
}

#endif
