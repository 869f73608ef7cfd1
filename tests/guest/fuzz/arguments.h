/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of system calls, by kind: mostly such that the call does something, sometimes anything. */
#ifndef NABLA_ARGUMENTS_H
#define NABLA_ARGUMENTS_H

#include "fuzz.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ARENA (1UL << 20)

static char *arena; /* the target of pointers, far from all other memory of this program */
static int descriptors[64], descriptor_count;
static const char *const paths[] = {
	"/tmp/fuzz/a", "/tmp/fuzz/d", "/tmp/fuzz/d/x", "/tmp/fuzz", "/var/tmp/fuzz/a", "/var/tmp/fuzz/d/y",
	"/var/tmp/fuzz", "/", "", "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts/0",
	"/dev/loop-control", "/proc/self/maps", "/proc/self/mem", "/proc/self/fd", "/proc/self/status",
	"/proc/self/auxv", "/proc/self/environ", "/proc/self/cmdline", "/proc/self/oom_score_adj", "/proc/self/ns/net",
	"/proc/self/uid_map", "/proc/self/smaps", "/proc/meminfo", "/proc/kallsyms", "/proc/slabinfo",
	"/proc/sysvipc/shm", "/proc/sys/kernel/shmmax", "/proc/net/tcp", "/proc/nabla/settings", "/sys/kernel",
	"/dev/ubda", "/dev/hvc0", "/dev/host/stdin", "ext4", "tmpfs", "overlay", "cgroup2", "mqueue", "proc",
	"lowerdir=/tmp/fuzz/d", "/proc/self/root/tmp/fuzz/a", "/tmp/fuzz/socket", "user.x", "security.capability",
	"system.posix_acl_access", "trusted.q", "eth0", "lo",
};

static word number(void)
{
	return fuzz_one_in(2) ? fuzz_below(70) : fuzz_any();
}

/*
 * As the size of a buffer, a number is smaller than the arena or larger than all memory. With a size in between the
 * kernel would overwrite the memory behind the arena, like a program that writes there by itself.
 */
static word bounded(word n)
{
	return n > 65536 && n < 0x40000000 ? 65536 : n;
}

/* Not so large that the call takes long: the other calls need the time. */
static word size(void)
{
	return bounded(fuzz_one_in(2) ? fuzz_below(5000) : fuzz_border());
}

static char *own(void)
{
	return arena + ARENA / 4 + fuzz_below(ARENA / 2) / 64 * 64;
}

static word memory(void)
{
	switch (fuzz_below(10)) {
	case 0:
		return fuzz_border();
	case 1:
		return 0;
	case 2:
		return (word)own() | 1;
	default:
		return (word)own();
	}
}

static word descriptor(void)
{
	if (fuzz_one_in(12))
		return fuzz_one_in(2) ? fuzz_any() : -100UL;
	return descriptors[fuzz_below(descriptor_count)];
}

/* Memory that holds numbers, descriptors, or addresses and sizes. */
static word filled(void)
{
	word *words = (word *)own();
	if (fuzz_one_in(12))
		return memory();
	int kind = fuzz_below(5);
	for (word n = fuzz_one_in(2) ? 16 : 128, i = 0; i < n; i += 2) {
		words[i] = kind == 0 ? 0 : kind == 1 ? fuzz_any() : kind == 2 ? memory() : kind == 3 ? descriptor() : number();
		words[i + 1] = kind == 0 ? 0 : kind == 2 ? size() : number();
	}
	return (word)words;
}

static word path(void)
{
	char *p = own();
	if (fuzz_one_in(12))
		return memory();
	if (fuzz_one_in(12)) {
		memset(p, 'a', 5000);
		p[4990] = 0;
	} else {
		strcpy(p, fuzz_pick(paths));
	}
	return (word)p;
}

static word address(void)
{
	char *p = own();
	memset(p, 0, 128);
	if (fuzz_one_in(3)) {
		struct sockaddr_un *un = (struct sockaddr_un *)p;
		un->sun_family = AF_UNIX;
		strcpy(un->sun_path, fuzz_one_in(2) ? "/tmp/fuzz/socket" : "");
	} else if (fuzz_one_in(2)) {
		struct sockaddr_in *in = (struct sockaddr_in *)p;
		in->sin_family = AF_INET;
		in->sin_port = htons(4000 + fuzz_below(8));
		in->sin_addr.s_addr = fuzz_one_in(3) ? fuzz_word() : htonl(INADDR_LOOPBACK);
	} else {
		*(short *)p = fuzz_below(45);
	}
	return (word)p;
}

/* Terminals, files, block devices, loop devices, sockets, interfaces, seccomp. */
static word ioctl_request(void)
{
	static const word groups[] = {0x5400, 0x1200, 0x8900, 0x4c00, 0x6600, 0xb700, 0x2100};
	switch (fuzz_below(4)) {
	case 0:
		return fuzz_any();
	case 1:
		return fuzz_below(4) << 30 | fuzz_below(256) << 16 | fuzz_below(256) << 8 | fuzz_below(256);
	default:
		return fuzz_pick(groups) + fuzz_below(256);
	}
}

static word argument(char kind)
{
	switch (kind) {
	case 'F':
		return descriptor();
	case 'P':
		return filled();
	case 'B':
		return memory();
	case 'S':
		return path();
	case 'N':
		return size();
	case 'I':
		return fuzz_one_in(4) ? 0 : 1UL << fuzz_below(32) | (fuzz_one_in(2) ? 1UL << fuzz_below(32) : 0);
	case 'V':
		return number();
	case 'p':
		return fuzz_one_in(4) ? 0x7fffffff : (word)getpid();
	case 'A':
		return address();
	case 'C':
		return ioctl_request();
	case 'o':
		return fuzz_below(fuzz_one_in(4) ? 1025 : 17);
	case 'm':
		return fuzz_word() & 0170777;
	case 's':
		return fuzz_below(66);
	default:
		return bounded(fuzz_one_in(3) ? filled() : fuzz_one_in(2) ? number() : memory());
	}
}

#endif
