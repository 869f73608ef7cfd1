// SPDX-License-Identifier: Apache-2.0
// No libc, no start files: the syscall instruction alone. Writes, reads its arguments, installs a signal handler with a
// restorer of its own, makes a vfork child and ends with the status given as argument 1.
typedef unsigned long word;

static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}

enum { WRITE = 1, RT_SIGACTION = 13, RT_SIGRETURN = 15, GETPID = 39, VFORK = 58, EXIT = 60, WAIT4 = 61, KILL = 62 };

static word length(const char *s)
{
	word n = 0;
	while (s[n])
		n++;
	return n;
}

static void say(const char *s)
{
	call(WRITE, 1, (long)s, length(s), 0);
}

struct action {
	void (*handler)(int);
	word flags;
	void (*restorer)(void);
	word mask;
};

static volatile int handled;

static void on_signal(int signal)
{
	handled = signal;
}

void restore(void);
__asm__("restore: mov $15, %eax\n syscall\n");

/* The value of RCX after the instruction: the address of the next one, as set by the processor. */
static int rcx_is_next_address(void)
{
	word rcx, next;
	__asm__ volatile("mov $39, %%eax\n lea 1f(%%rip), %%rdx\n syscall\n 1:" : "=c"(rcx), "=d"(next) : : "rax", "r11", "memory");
	return rcx == next;
}

__attribute__((used)) static void run(const word *stack)
{
	const char *const *argv = (const char *const *)(stack + 1);
	int status = 0, child_status = -1;
	say("ok 1 - a program without libc writes\n");
	struct action action = {on_signal, 0x04000000 /* SA_RESTORER */, restore, 0};
	call(RT_SIGACTION, 10, (long)&action, 0, 8);
	call(KILL, call(GETPID, 0, 0, 0, 0), 10, 0, 0);
	say(handled == 10 ? "ok 2 - its signal handler ran and returned\n" : "not ok 2 - its signal handler ran and returned\n");
	long pid = call(VFORK, 0, 0, 0, 0);
	if (pid == 0)
		call(EXIT, 21, 0, 0, 0);
	call(WAIT4, pid, (long)&child_status, 0, 0);
	say(pid > 0 && child_status == 21 << 8 ? "ok 3 - a vfork child\n" : "not ok 3 - a vfork child\n");
	say(rcx_is_next_address() ? "ok 4 - RCX as the processor leaves it\n" : "not ok 4 - RCX as the processor leaves it\n");
	if (stack[0] > 1)
		for (const char *p = argv[1]; *p; p++)
			status = status * 10 + *p - '0';
	say("1..4\n");
	call(EXIT, status, 0, 0, 0);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n hlt\n");
