// SPDX-License-Identifier: Apache-2.0
// Patched `syscall` instructions that more than one thread, process or mapping uses, and debuggers at them.
#define _GNU_SOURCE
#include "sites.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

extern unsigned char site_plain[], site_traced[], site_family[];

__asm__(".text\n"
	"site_plain:	mov $110, %eax\n syscall\n ret\n"
	"site_family:	mov $110, %eax\n syscall\n ret\n"
	"site_traced:	mov $110, %eax\n syscall\n nop\n ret\n");

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

/* Text is common to a family: a change by one member affects all. */
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
	test_mapped_file(patches);
	test_threads();
	test_family(patches);
	test_debugger();
	return tap_done();
}
