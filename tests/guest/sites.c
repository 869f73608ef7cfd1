// SPDX-License-Identifier: Apache-2.0
// The `syscall` instruction, over and over from the same places: the kernel turns these into jumps. Code that only looks
// as if it could be changed, code that changes itself, signals, and whether the program can tell. sites_shared.c tests
// sites that more than one thread, process or mapping uses.
#define _GNU_SOURCE
#include "sites.h"
#include "tap.h"
#include "util.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

extern unsigned char site_plain[], site_keeps[], site_jumped[], site_r8[], site_memory[], site_lea[], site_wide[];
extern unsigned char site_straddles[], site_modified[], site_loop[], site_loop_end[], site_restorer[], site_vfork[];
extern unsigned char site_stack[], site_second[], site_third[];

__asm__(".text\n"
	"site_plain:	mov $110, %eax\n syscall\n ret\n"
	// RDI RSI RDX R8 R9 R10, the red zone and the flags
	"site_keeps:	movq $77, -8(%rsp)\n movq $88, -120(%rsp)\n stc\n mov $110, %eax\n syscall\n"
	"	jnc 1f\n cmpq $77, -8(%rsp)\n jne 1f\n cmpq $88, -120(%rsp)\n jne 1f\n ret\n 1: xor %eax, %eax\n ret\n"
	// enters in front of the `syscall` with its own number when EDI is not 0
	"site_jumped:	mov %edi, %eax\n test %edi, %edi\n jnz 1f\n mov $110, %eax\n 1: syscall\n ret\n"
	// the tail of each longer instruction reads `mov $39, %eax`, and EAX is 39
	"site_r8:	mov $39, %eax\n xor %r8d, %r8d\n mov $39, %r8d\n syscall\n lea -39(%rax,%r8), %rax\n ret\n"
	"site_memory:	push %rbx\n push $0\n lea 72(%rsp), %rbx\n mov $39, %eax\n movl $39, -72(%rbx)\n syscall\n"
	"	pop %rdx\n pop %rbx\n lea -39(%rax,%rdx), %rax\n ret\n"
	"site_lea:	mov $39, %eax\n xor %edi, %edi\n lea 39(%rax), %edi\n syscall\n lea -78(%rax,%rdi), %rax\n ret\n"
	// movabs $…, %rax; ret; and from its second byte on `mov $39, %eax; syscall; ret`
	"site_wide:	.byte 0x48, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3, 0x90\n ret\n"
	"site_modified:	mov $110, %eax\n syscall\n ret\n"
	"site_loop:	mov $110, %eax\n syscall\n dec %edi\n jnz site_loop\n"
	"site_loop_end:	ret\n"
	"site_restorer:	mov $15, %eax\n syscall\n"
	"site_vfork:	mov $58, %eax\n syscall\n test %eax, %eax\n jnz 1f\n mov $23, %edi\n mov $60, %eax\n syscall\n 1: ret\n"
	// musl's cancellable calls and glibc's syscall() end their preparations like this
	"site_stack:	sub $24, %rsp\n mov $110, %eax\n lea 1f(%rip), %r11\n mov %r11, 8(%rsp)\n syscall\n"
	"1:	cmp %r11, 8(%rsp)\n lea 1b(%rip), %rdx\n cmp %rdx, 8(%rsp)\n jne 2f\n add $24, %rsp\n ret\n"
	"2:	xor %eax, %eax\n add $24, %rsp\n ret\n"
	"site_second:	sub $24, %rsp\n movq $5, 8(%rsp)\n mov $110, %eax\n xor %r9d, %r9d\n mov 8(%rsp), %r9\n syscall\n"
	"	lea -5(%rax,%r9), %rax\n add $24, %rsp\n ret\n"
	"site_third:	mov $110, %eax\n xor %edx, %edx\n mov $7, %edx\n syscall\n lea -7(%rax,%rdx), %rax\n ret\n"
	".balign 4096\n .skip 4093, 0x90\n"
	"site_straddles:	mov $110, %eax\n syscall\n ret\n");

/* The bytes of this program's text that other processes see. */
static int shown(const void *code, unsigned char *bytes, size_t size)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, bytes, size, (off_t)(uintptr_t)code);
	if (fd >= 0)
		close(fd);
	return n == (ssize_t)size;
}

static void test_forms(int patches)
{
	long parent = getppid(), pid = getpid();
	CHECK(turns(site_plain, 0, parent), "mov $nr,%eax; syscall");
	CHECK(first_byte(site_plain) == (patches ? JMP : MOV_EAX), "is a jump where the kernel makes it one");
	CHECK(turns(site_keeps, 0, parent), "the red zone and the flags are kept");
	CHECK(turns(site_stack, 0, parent), "mov %r11,8(%rsp); syscall");
	CHECK(turns(site_second, 0, parent), "mov 8(%rsp),%r9; syscall");
	CHECK(turns(site_third, 0, parent), "mov $7,%edx; syscall");
	CHECK(turns(site_straddles, 0, parent), "a site on two pages");
	CHECK(first_byte(site_straddles) == (patches ? JMP : MOV_EAX), "which is a jump as well");
	CHECK(turns(site_jumped, 0, parent) && turns(site_jumped, SYS_getpid, pid) && turns(site_jumped, 0, parent),
	      "the instruction alone is a jump target with another number");
	CHECK(turns(site_jumped, SYS_getpid, pid) && turns(site_jumped, 99999, -ENOSYS), "and stays one");
	int good = 0;
	for (int i = 0; i < TURNS; i++)
		good += exited_with(wait_status((pid_t)call(site_vfork, 0)), 23);
	CHECK(good == TURNS, "vfork and exit");
}

static void test_lookalikes(void)
{
	long pid = getpid();
	long wide = 0x9005c3050f000000, got;
	CHECK(turns(site_r8, 0, pid), "mov $39,%r8d is no mov $39,%eax");
	CHECK(turns(site_memory, 0, pid), "movl $39,-72(%rbx) is none");
	CHECK(turns(site_lea, 0, pid), "lea 39(%rax),%edi is none");
	memcpy(&wide, site_wide + 2, sizeof wide);
	got = call(site_wide, 0);
	CHECK(got == wide, "movabs with a system call inside");
	CHECK(turns(site_wide + 1, 0, pid), "which can be jumped into");
	CHECK(turns(site_wide, 0, wide), "and stays a movabs");
}

static void test_own_view(void)
{
	unsigned char before[32], after[32];
	memcpy(before, "\xb8\x6e\0\0\0\x0f\x05\xc3", 8);
	turns(site_plain, 0, getppid());
	CHECK(shown(site_plain, after, 8) && !memcmp(before, after, 8), "/proc/self/mem shows the text as it was");
	CHECK(shown(site_plain + 3, after, 2) && !memcmp(before + 3, after, 2), "a part of a site, too");
	CHECK(shown((void *)((uintptr_t)site_plain - 2), after, 4) && !memcmp(before, after + 2, 2), "and its beginning");
	int good = 0;
	unsigned char *page = (unsigned char *)((uintptr_t)site_straddles & -(uintptr_t)PAGE) + PAGE - 8;
	good += shown(page, after, 16) && !memcmp(after + 5, before, 8);
	CHECK(good, "across a page border");
}

static void test_self_modifying(void)
{
	unsigned char *page = (unsigned char *)((uintptr_t)site_modified & -(uintptr_t)PAGE);
	CHECK(turns(site_modified, 0, getppid()), "code that will be changed");
	CHECK(mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0, "is made writable");
	CHECK(first_byte(site_modified) == MOV_EAX, "and is then as it was written");
	site_modified[1] = SYS_getpid;
	CHECK(turns(site_modified, 0, getpid()), "it does what was written into it");
	site_modified[1] = SYS_getppid;
	CHECK(turns(site_modified, 0, getppid()), "as often as it is");
	mprotect(page, 2 * PAGE, PROT_READ | PROT_EXEC);
	CHECK(turns(site_modified, 0, getppid()), "also when it is read-only again");
}

static volatile long seen;
static volatile uintptr_t elsewhere[512];
static volatile unsigned strange;

static void look(int signal, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	const unsigned char *pc = (const unsigned char *)(uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	(void)signal;
	(void)info;
	seen++;
	if (!(pc >= site_loop && pc <= site_loop_end) && strange < ARRAY_SIZE(elsewhere))
		elsewhere[strange++] = (uintptr_t)pc;
}

/* The number of places that are in none of this program's mappings. */
static int outside(void)
{
	char line[256];
	int found = 0;
	for (unsigned i = 0; i < strange; i++) {
		FILE *maps = fopen("/proc/self/maps", "re");
		int mapped = 0;
		while (maps && fgets(line, sizeof line, maps)) {
			unsigned long from, to;
			if (sscanf(line, "%lx-%lx", &from, &to) == 2)
				mapped |= elsewhere[i] >= from && elsewhere[i] < to;
		}
		if (maps)
			fclose(maps);
		found += !mapped;
	}
	return found;
}

static void test_signals(void)
{
	struct sigaction action = {.sa_sigaction = look, .sa_flags = SA_SIGINFO | SA_RESTART}, old;
	long wrong = 0;
	turns(site_loop, 1, getppid());
	sigaction(SIGALRM, &action, &old);
	for (int i = 0; i < 300; i++) {
		long before = seen;
		struct itimerval once = {{0, 0}, {0, 20 + i % 150}};
		setitimer(ITIMER_REAL, &once, NULL);
		while (seen == before)
			wrong += call(site_loop, 1000) != getppid();
	}
	sigaction(SIGALRM, &old, NULL);
	tap_note("%ld signals, %u outside of the loop", seen, strange);
	CHECK(wrong == 0, "300 signals in a loop of system calls");
	CHECK(outside() == 0, "find the program in its own memory");
}

static volatile int handled;

static void count(int signal)
{
	(void)signal;
	handled++;
}

struct kernel_action {
	void (*handler)(int);
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

static void test_restorer(void)
{
	struct kernel_action action = {count, 0x04000000 /* SA_RESTORER */, site_restorer, 0}, old;
	if (syscall(SYS_rt_sigaction, SIGUSR1, &action, &old, 8))
		return;
	for (int i = 0; i < TURNS; i++)
		raise(SIGUSR1);
	syscall(SYS_rt_sigaction, SIGUSR1, &old, NULL, 8);
	CHECK(handled == TURNS && first_byte(site_restorer) == MOV_EAX, "the way back from a signal keeps its bytes");
}

int main(void)
{
	test_forms(kernel_patches());
	test_lookalikes();
	test_own_view();
	test_signals();
	test_restorer();
	test_self_modifying();
	return tap_done();
}
