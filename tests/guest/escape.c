// SPDX-License-Identifier: Apache-2.0
/*
 * Tries to reach the host past the guest kernel. Without arguments: mistakes of a program, which must affect only the
 * program itself. With arguments: one attempt, whose outcome tests/integration/test_policy.py checks from outside:
 *
 *	escape PLACE NUMBER [ARGUMENT…]
 *
 * makes the host's system call NUMBER from a `syscall` instruction outside guest memory. PLACE is the address of such an
 * instruction in the kernel's text; or vdso:ADDRESS, where ADDRESS is that of the kernel's variable with the address of
 * the host's vDSO; or int80, sysenter or syscall32: that instruction in the program, in 32-bit mode; or own: a `syscall`
 * in the program, for comparison on a host. An ARGUMENT is a number, text:STRING (the address of the string), zeros:N
 * (the address of N zero bytes), or iov:STRING (the address of a struct iovec for the string). If the call returns, the
 * program prints its result.
 *
 *	escape fill PLACE START END RIGHTS [BYTES]
 *
 * turns as many of the addresses from START to END into memory as the host permits, and uses it. With each of the RIGHTS,
 * it tries to revoke write access to a part, so that this part no longer counts. It prints the number of megabytes used.
 * Before that, it revokes write access to this number of BYTES of the VM's own memory, if the host permits it.
 */
#include "tap.h"
#include "util.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* In 32-bit mode: EAX EBX ECX EDX ESI EDI from the table at EBP, then the instruction. */
extern const unsigned char compat_int80[], compat_sysenter[], compat_syscall32[];
#define COMPAT(name, instruction)                                                                   \
	__asm__(".pushsection .rodata\n"                                                            \
		".code32\n" #name ":\n"                                                             \
		"	movl (%ebp), %eax\n	movl 4(%ebp), %ebx\n	movl 8(%ebp), %ecx\n"        \
		"	movl 12(%ebp), %edx\n	movl 16(%ebp), %esi\n	movl 20(%ebp), %edi\n" instruction \
		"	hlt\n"                                                                      \
		".code64\n"                                                                         \
		".popsection\n")
COMPAT(compat_int80, "int $0x80\n");
COMPAT(compat_sysenter, "sysenter\n");
COMPAT(compat_syscall32, ".byte 0x0f, 0x05\n");

/* For comparison, on a host. */
extern const unsigned char own_syscall[];
__asm__("own_syscall: syscall\n	ret\n");

static sigjmp_buf back;

static void on_signal(int sig)
{
	siglongjmp(back, sig);
}

/* Runs in 64-bit mode; a 32-bit system call fails as on a host without support for them. */
static void int80(void)
{
	long number = 20; /* getpid of i386 */
	__asm__ volatile("int $0x80" : "+a"(number) : : "memory");
}

static void own_attempts(void)
{
	for (volatile int turn = 0; turn < 3; turn++) {
		int sig = sigsetjmp(back, 1);
		if (!sig) {
			signal(SIGSEGV, on_signal);
			int80();
		}
		CHECK(sig == SIGSEGV, "int $0x80 is this program's SIGSEGV");
	}
	CHECK(getppid() > 0, "the machine is still there");
}

static long number_of(const char *text)
{
	char *end;
	errno = 0;
	long value = (long)(text[0] == '-' ? (unsigned long)strtoll(text, &end, 0) : strtoull(text, &end, 0));
	if (*end || errno) {
		fprintf(stderr, "escape: %s is not a number\n", text);
		exit(99);
	}
	return value;
}

static const char *behind(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);
	return strncmp(text, prefix, length) ? NULL : text + length;
}

static long argument(char *text)
{
	const char *rest;
	if ((rest = behind(text, "text:")))
		return (long)rest;
	if ((rest = behind(text, "zeros:")))
		return (long)calloc(1, number_of(rest));
	if ((rest = behind(text, "iov:"))) {
		struct iovec *iov = malloc(sizeof(*iov));
		*iov = (struct iovec){(void *)rest, strlen(rest)};
		return (long)iov;
	}
	return number_of(text);
}

/* The first `syscall` instruction of the host's vDSO that the kernel calls. */
static unsigned long in_vdso(unsigned long variable)
{
	const unsigned char *vdso = *(const unsigned char **)variable;
	for (size_t i = 0; vdso && i < 8192; i++)
		if (vdso[i] == 0x0f && vdso[i + 1] == 0x05)
			return (unsigned long)(vdso + i);
	fprintf(stderr, "escape: no syscall instruction in the vDSO\n");
	exit(98);
}

static long jump(unsigned long place, long number, const long *a)
{
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	/* The return address must not fall into the red zone. */
	__asm__ volatile("addq $-128, %%rsp\n	call *%%rbx\n	subq $-128, %%rsp"
			 : "+a"(number), "+r"(r10), "+r"(r8), "+r"(r9)
			 : "b"(place), "D"(a[0]), "S"(a[1]), "d"(a[2])
			 : "rcx", "r11", "memory", "cc");
	return number;
}

/* Leaves 64-bit mode by a far return. Needs code and data below 4 GB, which guest memory is. */
static void compat(const unsigned char *entry, long number, const long *a)
{
	unsigned char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (low == MAP_FAILED || (unsigned long)low >> 32) {
		fprintf(stderr, "escape: no memory below 4 GB\n");
		exit(97);
	}
	memcpy(low, entry, 32);
	int *table = (int *)(low + 1024);
	table[0] = (int)number;
	for (int i = 0; i < 5; i++)
		table[i + 1] = (int)a[i];
	__asm__ volatile("movq %0, %%rbp\n"
			 "	pushq $0x23\n" /* the host's 32-bit code segment */
			 "	pushq %1\n"
			 "	lretq\n"
			 :
			 : "r"(table), "r"(low)
			 : "memory");
	__builtin_unreachable();
}

static int fill(char **argv)
{
	enum { PART = 1 << 20, MPROTECT = 10 };
	unsigned long place = number_of(argv[2]), start = number_of(argv[3]), end = number_of(argv[4]), used = 0;
	long rights = number_of(argv[5]), own = argv[6] ? (long)number_of(argv[6]) : 0;
	if (own) {
		char *p = mmap(NULL, (size_t)own, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return 1;
		memset(p, 1, (size_t)own);
		jump(place, MPROTECT, (long[6]){(long)p, own, 5});
	}
	for (unsigned long at = start; at < end; at += PART) {
		if (jump(place, MPROTECT, (long[6]){at, PART, 7}))
			break;
		for (unsigned long page = at; page < at + PART; page += 4096)
			*(volatile char *)page = 1;
		used += PART;
		if (rights != 7)
			jump(place, MPROTECT, (long[6]){at, PART, rights});
	}
	printf("used %lu MB\n", used >> 20);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 6 && !strcmp(argv[1], "fill"))
		return fill(argv);
	if (argc < 2) {
		own_attempts();
		return tap_done();
	}
	long a[6] = {0};
	for (int i = 3; i < argc && i < 9; i++)
		a[i - 3] = argument(argv[i]);
	long number = number_of(argv[2]);
	const char *variable = behind(argv[1], "vdso:");
	if (!strcmp(argv[1], "int80"))
		compat(compat_int80, number, a);
	if (!strcmp(argv[1], "sysenter"))
		compat(compat_sysenter, number, a);
	if (!strcmp(argv[1], "syscall32"))
		compat(compat_syscall32, number, a);
	unsigned long place;
	if (!strcmp(argv[1], "own"))
		place = (unsigned long)own_syscall;
	else
		place = variable ? in_vdso(number_of(variable)) : (unsigned long)number_of(argv[1]);
	printf("back with %ld\n", jump(place, number, a));
	return 0;
}
