// SPDX-License-Identifier: Apache-2.0
// The `syscall` instruction, over and over from the same places: the kernel turns these into jumps. Code that only looks
// as if it could be changed, code that changes itself, debuggers, signals, and whether the program can tell.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <ucontext.h>

enum { PAGE = 4096, TURNS = 6, MOV_EAX = 0xb8, JMP = 0xe9 };

extern unsigned char site_plain[], site_keeps[], site_jumped[], site_r8[], site_memory[], site_lea[], site_wide[];
extern unsigned char site_straddles[], site_modified[], site_loop[], site_loop_end[], site_restorer[], site_vfork[];
extern unsigned char site_traced[], site_family[], site_stack[], site_second[], site_third[];

__asm__(".text\n"
	"site_plain:	mov $110, %eax\n syscall\n ret\n"
	// RDI RSI RDX R8 R9 R10, the red zone and the flags
	"site_keeps:	movq $77, -8(%rsp)\n movq $88, -120(%rsp)\n stc\n mov $110, %eax\n syscall\n"
	"	jnc 1f\n cmpq $77, -8(%rsp)\n jne 1f\n cmpq $88, -120(%rsp)\n jne 1f\n ret\n 1: xor %eax, %eax\n ret\n"
	// enters in front of the `syscall` with a number of its own when EDI is not 0
	"site_jumped:	mov %edi, %eax\n test %edi, %edi\n jnz 1f\n mov $110, %eax\n 1: syscall\n ret\n"
	// the tail of each longer instruction reads `mov $39, %eax`, and EAX is 39
	"site_r8:	mov $39, %eax\n xor %r8d, %r8d\n mov $39, %r8d\n syscall\n lea -39(%rax,%r8), %rax\n ret\n"
	"site_memory:	push %rbx\n push $0\n lea 72(%rsp), %rbx\n mov $39, %eax\n movl $39, -72(%rbx)\n syscall\n"
	"	pop %rdx\n pop %rbx\n lea -39(%rax,%rdx), %rax\n ret\n"
	"site_lea:	mov $39, %eax\n xor %edi, %edi\n lea 39(%rax), %edi\n syscall\n lea -78(%rax,%rdi), %rax\n ret\n"
	// movabs $…, %rax; ret; and from its second byte on `mov $39, %eax; syscall; ret`
	"site_wide:	.byte 0x48, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3, 0x90\n ret\n"
	"site_modified:	mov $110, %eax\n syscall\n ret\n"
	"site_family:	mov $110, %eax\n syscall\n ret\n"
	"site_loop:	mov $110, %eax\n syscall\n dec %edi\n jnz site_loop\n"
	"site_loop_end:	ret\n"
	"site_restorer:	mov $15, %eax\n syscall\n"
	"site_vfork:	mov $58, %eax\n syscall\n test %eax, %eax\n jnz 1f\n mov $23, %edi\n mov $60, %eax\n syscall\n 1: ret\n"
	"site_traced:	mov $110, %eax\n syscall\n nop\n ret\n"
	// musl's cancellable calls and glibc's syscall() end their preparations like this
	"site_stack:	sub $24, %rsp\n mov $110, %eax\n lea 1f(%rip), %r11\n mov %r11, 8(%rsp)\n syscall\n"
	"1:	cmp %r11, 8(%rsp)\n lea 1b(%rip), %rdx\n cmp %rdx, 8(%rsp)\n jne 2f\n add $24, %rsp\n ret\n"
	"2:	xor %eax, %eax\n add $24, %rsp\n ret\n"
	"site_second:	sub $24, %rsp\n movq $5, 8(%rsp)\n mov $110, %eax\n xor %r9d, %r9d\n mov 8(%rsp), %r9\n syscall\n"
	"	lea -5(%rax,%r9), %rax\n add $24, %rsp\n ret\n"
	"site_third:	mov $110, %eax\n xor %edx, %edx\n mov $7, %edx\n syscall\n lea -7(%rax,%rdx), %rax\n ret\n"
	".balign 4096\n .skip 4093, 0x90\n"
	"site_straddles:	mov $110, %eax\n syscall\n ret\n");

typedef long function(long argument);

static long call(const void *code, long argument)
{
	return ((function *)(uintptr_t)code)(argument);
}

/* Calls it a few times; whether each gave the same result. */
static int turns(const void *code, long argument, long result)
{
	int good = 0;
	for (int i = 0; i < TURNS; i++)
		good += call(code, argument) == result;
	return good == TURNS;
}

/* Does this kernel turn sites into jumps at all? */
static int kernel_patches(void)
{
	static char line[8192];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (fd >= 0)
		close(fd);
	return no_mmu() && n > 0 && !strstr(line, "um_patch=0") && !strstr(line, "um_patch=n");
}

static int first_byte(const void *code)
{
	return *(const volatile unsigned char *)code;
}

/* The bytes of this program's text as the kernel shows them to others. */
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

/* How many of the places are in none of this program's mappings. */
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
	CHECK(outside() == 0, "find the program in memory of its own");
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

/* A file of code: the site at its end exits, the other two return the parent's number. */
static int make_code(const char *path, const unsigned char *code, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	static unsigned char page[PAGE];
	memset(page, 0x90, sizeof page);
	memcpy(page + 64, code, size);
	memcpy(page + PAGE - 9, "\x31\xff\xb8\x3c\0\0\0\x0f\x05", 9);
	if (write(fd, page, sizeof page) != sizeof page)
		return -1;
	return fd;
}

static unsigned char *map_code(int fd)
{
	return mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
}

static int exit_at_the_end(const unsigned char *code)
{
	pid_t child = vfork();
	if (child == 0)
		call(code + PAGE - 9, 0);
	return exited_with(wait_status(child), 0);
}

static void test_mapped_file(int patches)
{
	static const unsigned char plain[] = "\xb8\x6e\0\0\0\x0f\x05\xc3";
	// mov $39,%eax; mov $39,%r8d; syscall; lea -39(%rax,%r8),%rax; ret — its site is where the first one was
	static const unsigned char other[] = "\x41\xb8\x6e\0\0\0\x0f\x05\x4c\x89\xc0\xc3";
	char path[] = "/tmp/sites-XXXXXX";
	close(mkstemp(path));
	int fd = make_code(path, plain, sizeof plain - 1);
	unsigned char *code = map_code(fd), *again, byte = 0;
	if (!CHECK(fd >= 0 && code != MAP_FAILED, "a file of code is mapped"))
		return;
	sleep_ms(30); // a file that has just changed is not known by its time
	munmap(code, PAGE);
	code = map_code(fd);
	CHECK(turns(code + 64, 0, getppid()), "its code runs");
	CHECK(first_byte(code + 64) == (patches ? JMP : MOV_EAX), "as a jump where the kernel makes it one");
	CHECK(pread(fd, &byte, 1, 64) == 1 && byte == MOV_EAX, "the file is unchanged");
	again = map_code(fd);
	CHECK(first_byte(again + 64) == (patches ? JMP : MOV_EAX), "a second mapping has the jump from the start");
	CHECK(turns(again + 64, 0, getppid()), "and works");
	munmap(code, PAGE);
	CHECK(turns(again + 64, 0, getppid()), "also without the first");
	int good = 0;
	for (int i = 0; i < TURNS; i++)
		good += exit_at_the_end(again);
	CHECK(good == TURNS, "a site at the very end of a mapping");
	munmap(again, PAGE);

	CHECK(pwrite(fd, other, sizeof other - 1, 63) == sizeof other - 1, "the file gets other code");
	code = map_code(fd);
	int right = 0;
	for (int i = 0; i < TURNS; i++) {
		long r8;
		// EAX is 110 and R8 is what the instruction in front of the `syscall` has loaded
		__asm__ volatile("mov $110, %%eax\n call *%1" : "=&a"(r8) : "r"(code + 63) : "rcx", "r8", "r11", "memory");
		right += r8 == 110;
	}
	CHECK(right == TURNS, "which is run as it is");
	munmap(code, PAGE);

	// a text that is written over by another mapping
	unsigned char *place = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pwrite(fd, "\x90", 1, 63);
	pwrite(fd, plain, sizeof plain - 1, 64);
	int same = 0;
	for (int i = 0; i < TURNS; i++) {
		unsigned char *at = mmap(place, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
		same += at == place && turns(at + 64, 0, getppid());
	}
	CHECK(same == TURNS, "text is mapped over text again and again");
	CHECK(mmap(place, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place &&
		      place[64] == 0, "and over by zeros");
	munmap(place, 2 * PAGE);
	close(fd);
	unlink(path);
}

static void *many(void *unused)
{
	long good = 0;
	for (int i = 0; i < 3000; i++) {
		good += call(site_plain, 0) == getppid();
		if (i % 100 == 0)
			sched_yield();
	}
	return good == 3000 ? NULL : unused;
}

static void test_threads(void)
{
	pthread_t t[4];
	int good = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, many, t);
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(t[i], &result);
		good += !result;
	}
	CHECK(good == 4, "four threads use one site");
}

/* Text is common to a family: what one member makes of it, all have. */
static void test_family(int patches)
{
	int good = 0;
	for (int i = 0; i < TURNS; i++) {
		long self = getpid();
		pid_t child = fork();
		if (child == 0)
			_exit(turns(site_plain, 0, self) && turns(site_family, 0, self) ? 0 : 3);
		good += exited_with(wait_status(child), 0);
	}
	CHECK(good == TURNS, "children of fork() use the sites of their parent");
	CHECK(turns(site_family, 0, getppid()), "and the parent one that they were the first to use");
	CHECK(first_byte(site_family) == (patches ? JMP : MOV_EAX), "which is a jump where the kernel makes it one");
}

/* The child: its site is a jump already, then it lets itself be traced. */
static int be_traced(void)
{
	const void *address = site_traced;
	if (!turns(site_traced, 0, getppid()))
		return 3;
	if (write(1, &address, sizeof address) != sizeof address || ptrace(PTRACE_TRACEME, 0, 0, 0))
		return 4;
	raise(SIGSTOP);
	for (int i = 0; i < 3; i++)
		if (call(site_traced, 0) != getppid())
			return 5;
	return 42;
}

static long instruction_pointer(pid_t child)
{
	struct user_regs_struct regs;
	return ptrace(PTRACE_GETREGS, child, 0, &regs) ? -1 : (long)regs.rip;
}

static int stopped_by(pid_t child, int signal)
{
	int status = wait_status(child);
	return WIFSTOPPED(status) && WSTOPSIG(status) == signal;
}

static void test_debugger(void)
{
	int ends[2];
	char *argv[] = {"child", "traced", NULL};
	posix_spawn_file_actions_t actions;
	pid_t child;
	unsigned char *site;
	struct user_regs_struct regs;
	if (pipe(ends))
		return;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	if (!CHECK(posix_spawn(&child, SELF, &actions, NULL, argv, environ) == 0, "a child to be traced"))
		return;
	close(ends[1]);
	CHECK(read(ends[0], &site, sizeof site) == sizeof site && stopped_by(child, SIGSTOP), "stops");
	close(ends[0]);
	errno = 0;
	long word = ptrace(PTRACE_PEEKTEXT, child, site, 0);
	CHECK(errno == 0 && word == (long)0x90050f0000006eb8, "PEEKTEXT shows the text as it was");
	CHECK(ptrace(PTRACE_POKETEXT, child, site, (word & ~0xffL) | 0xcc) == 0 && ptrace(PTRACE_CONT, child, 0, 0) == 0 &&
		      stopped_by(child, SIGTRAP) && instruction_pointer(child) == (long)site + 1, "a breakpoint on the site");
	ptrace(PTRACE_POKETEXT, child, site, word);
	ptrace(PTRACE_GETREGS, child, 0, &regs);
	regs.rip = (unsigned long)site;
	ptrace(PTRACE_SETREGS, child, 0, &regs);
	CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) &&
		      instruction_pointer(child) == (long)site + 5, "a step over the mov");
	// the nop behind it belongs to the step where the instruction traps
	CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) &&
		      (instruction_pointer(child) == (long)site + 7 || instruction_pointer(child) == (long)site + 8),
	      "a step over the system call");
	ptrace(PTRACE_GETREGS, child, 0, &regs);
	regs.rip = (unsigned long)site;
	ptrace(PTRACE_SETREGS, child, 0, &regs);
	CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && stopped_by(child, SIGTRAP), "the mov again");
	word = ptrace(PTRACE_PEEKTEXT, child, site + 5, 0);
	CHECK(ptrace(PTRACE_POKETEXT, child, site + 5, (word & ~0xffffL) | 0x05cc) == 0 &&
		      ptrace(PTRACE_CONT, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) &&
		      instruction_pointer(child) == (long)site + 6, "a breakpoint on the instruction itself");
	ptrace(PTRACE_POKETEXT, child, site + 5, word);
	ptrace(PTRACE_GETREGS, child, 0, &regs);
	regs.rip = (unsigned long)site + 5;
	ptrace(PTRACE_SETREGS, child, 0, &regs);
	CHECK(ptrace(PTRACE_SYSCALL, child, 0, 0) == 0 && stopped_by(child, SIGTRAP) &&
		      ptrace(PTRACE_GETREGS, child, 0, &regs) == 0 && regs.orig_rax == SYS_getppid &&
		      regs.rip == (unsigned long)site + 7, "a stop at the system call");
	ptrace(PTRACE_DETACH, child, 0, 0);
	CHECK(exited_with(wait_status(child), 42), "it runs on without the debugger");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "traced"))
		return be_traced();
	int patches = kernel_patches();
	test_forms(patches);
	test_lookalikes();
	test_own_view();
	test_signals();
	test_restorer();
	test_mapped_file(patches);
	test_threads();
	test_family(patches);
	test_debugger();
	test_self_modifying();
	return tap_done();
}
