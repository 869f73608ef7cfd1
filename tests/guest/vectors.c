// SPDX-License-Identifier: Apache-2.0
// x87, SSE, AVX and AVX-512 state: kept across system calls, task switches, preemption and signal frames;
// inherited by threads, fresh after exec. Argument "raw": system calls by instruction only.
#define _GNU_SOURCE
#include "gate.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

/* The action between filling all vector registers and reading them back. */
struct between {
	const void *in;
	void *out;
	long spins; // busy turns, when number is negative
	long number; // or a system call with these arguments
	long a, b, c;
	unsigned long gate;
	long result;
};

/* One function per register set: the state is loaded from ->in, the action done, the state stored to ->out. */
void sse_roundtrip(struct between *);
void avx_roundtrip(struct between *);
void avx512_roundtrip(struct between *);
long double x87_roundtrip(struct between *);

#define ENTER(name)                                                 \
	"	.globl " name "\n"                                  \
	"	.type " name ", @function\n" name ":\n"             \
	"	push %rbx\n"                                        \
	"	mov %rdi, %rbx\n"                                   \
	"	mov 0(%rbx), %rax\n"

#define ACT                               \
	"	mov 24(%rbx), %rax\n"     \
	"	test %rax, %rax\n"        \
	"	js 1f\n"                  \
	"	mov 32(%rbx), %rdi\n"     \
	"	mov 40(%rbx), %rsi\n"     \
	"	mov 48(%rbx), %rdx\n"     \
	"	mov 56(%rbx), %r11\n"     \
	GATE_ASM                          \
	"	mov %rax, 64(%rbx)\n"     \
	"	jmp 3f\n"                 \
	"1:	mov 16(%rbx), %rcx\n"     \
	"2:	dec %rcx\n"               \
	"	jnz 2b\n"                 \
	"3:	mov 8(%rbx), %rax\n"

#define ALL16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define ALL32 ALL16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

__asm__(".text\n"
	ENTER("sse_roundtrip")
	".irp n," ALL16 "\n	movups 16*\\n(%rax), %xmm\\n\n	.endr\n"
	ACT
	".irp n," ALL16 "\n	movups %xmm\\n, 16*\\n(%rax)\n	.endr\n"
	"	pop %rbx\n	ret\n"

	ENTER("avx_roundtrip")
	".irp n," ALL16 "\n	vmovdqu 32*\\n(%rax), %ymm\\n\n	.endr\n"
	ACT
	".irp n," ALL16 "\n	vmovdqu %ymm\\n, 32*\\n(%rax)\n	.endr\n"
	"	vzeroupper\n	pop %rbx\n	ret\n"

	ENTER("avx512_roundtrip")
	".irp n," ALL32 "\n	vmovdqu64 64*\\n(%rax), %zmm\\n\n	.endr\n"
	".irp n,0,1,2,3,4,5,6,7\n	kmovq 2048+8*\\n(%rax), %k\\n\n	.endr\n"
	ACT
	".irp n," ALL32 "\n	vmovdqu64 %zmm\\n, 64*\\n(%rax)\n	.endr\n"
	".irp n,0,1,2,3,4,5,6,7\n	kmovq %k\\n, 2048+8*\\n(%rax)\n	.endr\n"
	"	vzeroupper\n	pop %rbx\n	ret\n"

	// Seven constants on the x87 stack; returns their sum.
	ENTER("x87_roundtrip")
	"	fninit\n	fld1\n	fldpi\n	fldl2e\n	fldl2t\n	fldlg2\n	fldln2\n	fld1\n"
	ACT
	"	faddp\n	faddp\n	faddp\n	faddp\n	faddp\n	faddp\n"
	"	pop %rbx\n	ret\n");

struct register_set {
	const char *name;
	void (*roundtrip)(struct between *);
	size_t size;
};

static const struct register_set register_sets[] = {
	{"SSE", sse_roundtrip, 16 * 16},
	{"AVX", avx_roundtrip, 16 * 32},
	{"AVX-512", avx512_roundtrip, 32 * 64 + 8 * 8},
};

static int available(const struct register_set *set)
{
	if (set->roundtrip == avx_roundtrip)
		return __builtin_cpu_supports("avx");
	if (set->roundtrip == avx512_roundtrip)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
	return 1;
}

enum { STATE_MAX = 32 * 64 + 64 };

static void fill(unsigned char *state, unsigned seed)
{
	for (size_t i = 0; i < STATE_MAX; i++) {
		seed = seed * 1103515245 + 12345;
		state[i] = seed >> 16;
	}
}

/* One round trip; returns whether every byte came back. */
static int kept(const struct register_set *set, struct between *what, unsigned seed)
{
	unsigned char in[STATE_MAX], out[STATE_MAX];
	fill(in, seed);
	memset(out, 0, sizeof out);
	what->in = in;
	what->out = out;
	set->roundtrip(what);
	return !memcmp(in, out, set->size);
}

/* The x87 and MXCSR control state beside the registers. */
static int control_kept(void)
{
	unsigned mxcsr;
	unsigned short fcw;
	__asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(fcw));
	return (mxcsr & 0xffc0) == 0x7f80 && fcw == 0x0f7f;
}

/* Rounding toward zero everywhere: not the default, so a lost control word shows. */
static void set_control(void)
{
	unsigned mxcsr = 0x7f80;
	unsigned short fcw = 0x0f7f;
	__asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(mxcsr), "m"(fcw));
}

static void reset_control(void)
{
	unsigned mxcsr = 0x1f80;
	unsigned short fcw = 0x037f;
	__asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(mxcsr), "m"(fcw));
}

static void destroy_vectors(int signal)
{
	static const unsigned char noise[STATE_MAX] = {[0 ... STATE_MAX - 1] = 0xa5};
	static unsigned char nowhere[STATE_MAX];
	struct between quick = {.in = noise, .out = nowhere, .spins = 1, .number = -1};
	for (size_t i = 0; i < ARRAY_SIZE(register_sets); i++)
		if (available(&register_sets[i]))
			register_sets[i].roundtrip(&quick);
	reset_control();
	__asm__ volatile("fninit\n fldpi\n fldpi\n fldpi\n fstp %%st(0)" : : : "st", "st(1)", "st(2)", "st(3)");
	__asm__ volatile("fninit" : : : "st");
	(void)signal;
}

static volatile int stop, signals_seen;

static void on_alarm(int signal)
{
	signals_seen++;
	destroy_vectors(signal);
}

/* A thread that soils the vector registers whenever it runs. */
static void *soil(void *unused)
{
	while (!stop) {
		destroy_vectors(0);
		sched_yield();
	}
	return unused;
}

/* A thread that answers each byte of one pipe in another. */
static int to_peer[2], from_peer[2];

static void *answer(void *unused)
{
	char byte;
	while (read(to_peer[0], &byte, 1) == 1) {
		destroy_vectors(0);
		if (write(from_peer[1], &byte, 1) != 1)
			break;
	}
	return unused;
}

static void check_set(const struct register_set *set, const char *what, struct between *between, int rounds)
{
	char name[128];
	int good = 1;
	for (int i = 0; good && i < rounds; i++)
		good = kept(set, between, i + 1);
	snprintf(name, sizeof name, "%s kept %s", set->name, what);
	CHECK(good, name);
}

static void test_set(const struct register_set *set, unsigned long gate)
{
	char name[128];
	if (!available(set)) {
		snprintf(name, sizeof name, "%s registers", set->name);
		tap_skip(name, "this processor has none");
		return;
	}
	struct between call = {.number = SYS_getppid, .gate = gate};
	check_set(set, "across getppid", &call, 1000);

	char zeros[512];
	int null = open("/dev/zero", O_RDWR);
	struct between copy = {.number = SYS_read, .a = null, .b = (long)zeros, .c = sizeof zeros, .gate = gate};
	check_set(set, "across a read that fills memory", &copy, 1000);
	close(null);

	struct between yield = {.number = SYS_sched_yield, .gate = gate};
	pthread_t soiler;
	stop = 0;
	pthread_create(&soiler, NULL, soil, NULL);
	check_set(set, "across switches to a thread that uses them", &yield, 2000);
	struct between spin = {.number = -1, .spins = 20000000};
	check_set(set, "across preemption by such a thread", &spin, 10);
	stop = 1;
	pthread_join(soiler, NULL);

	pthread_t peer;
	if (pipe(to_peer) || pipe(from_peer))
		return;
	pthread_create(&peer, NULL, answer, NULL);
	int good = 1;
	char byte = 'x';
	struct between wait = {.number = SYS_read, .a = from_peer[0], .b = (long)&byte, .c = 1, .gate = gate};
	for (int i = 0; good && i < 500; i++)
		good = write(to_peer[1], &byte, 1) == 1 && kept(set, &wait, i + 7) && wait.result == 1;
	snprintf(name, sizeof name, "%s kept while blocked in read", set->name);
	CHECK(good, name);
	close(to_peer[1]);
	pthread_join(peer, NULL);
	close(to_peer[0]);
	close(from_peer[0]);
	close(from_peer[1]);

	signals_seen = 0;
	alarm_every_us(400);
	spin.spins = 1000000;
	check_set(set, "under signals whose handler destroys them", &spin, 100);
	check_set(set, "in system calls under such signals", &call, 20000);
	alarm_every_us(0);
	CHECK(signals_seen > 10, "and the signals did arrive");
}

static void test_control(unsigned long gate)
{
	set_control();
	gate_call(gate, SYS_getppid, 0, 0, 0, 0);
	CHECK(control_kept(), "MXCSR and the x87 control word across a system call");
	signals_seen = 0;
	alarm_every_us(2000);
	for (int64_t end = now_ns() + 50000000; now_ns() < end;)
		;
	alarm_every_us(0);
	CHECK(signals_seen > 0 && control_kept(), "and across signals whose handler resets them");
	raise(SIGALRM);
	CHECK(control_kept(), "and across a signal to oneself");
	reset_control();
}

static void *control_in_thread(void *unused)
{
	(void)unused;
	return (void *)(long)control_kept();
}

static void test_inheritance(void)
{
	pthread_t t;
	void *result = NULL;
	set_control();
	int error = pthread_create(&t, NULL, control_in_thread, NULL);
	reset_control();
	if (!error)
		pthread_join(t, &result);
	CHECK(result, "a new thread inherits MXCSR and the control word");
	set_control();
	int status = run_role("fresh", NULL);
	reset_control();
	CHECK(exited_with(status, 0), "exec resets them");
}

static int fresh_role(void)
{
	unsigned mxcsr;
	unsigned short fcw;
	__asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(fcw));
	return mxcsr == 0x1f80 && fcw == 0x037f ? 0 : 1;
}

static void test_x87(unsigned long gate)
{
	struct between call = {.number = SYS_getppid, .gate = gate};
	struct between spin = {.number = -1, .spins = 100000000};
	long double sum = x87_roundtrip(&call);
	CHECK(sum > 10.90L && sum < 10.91L, "the x87 stack across a system call");

	pthread_t soiler;
	stop = 0;
	pthread_create(&soiler, NULL, soil, NULL);
	CHECK(x87_roundtrip(&spin) == sum, "across preemption by a thread that uses it");
	stop = 1;
	pthread_join(soiler, NULL);
	alarm_every_us(400);
	CHECK(x87_roundtrip(&spin) == sum, "under signals whose handler uses it");
	alarm_every_us(0);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "fresh"))
		return fresh_role();
	unsigned long gate = gate_for(argc, argv);
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	tap_note("system calls by %s", gate ? "AT_SYSINFO" : "instruction");
	for (size_t i = 0; i < ARRAY_SIZE(register_sets); i++)
		test_set(&register_sets[i], gate);
	test_control(gate);
	test_inheritance();
	test_x87(gate);
	return tap_done();
}
