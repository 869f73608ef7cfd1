// SPDX-License-Identifier: Apache-2.0
// Everything at once for a few seconds (argument 1, default 3): a storm of asynchronous signals over threads that check
// registers, vectors, floating point, pipes and memory, while processes are started and reaped.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/mman.h>

static volatile int stop;
static volatile long signals_seen, bad, calls;
static volatile double sink;
static pid_t self;

static void storm(int signal)
{
	double x = signals_seen++;
	for (int i = 0; i < 20; i++)
		x = x * 1.5 + 2;
	sink = x;
	getppid();
	(void)signal;
}

static void note_bad(int condition)
{
	if (condition)
		__atomic_add_fetch(&bad, 1, __ATOMIC_SEQ_CST);
}

/* Six registers and an xmm register over a busy loop. */
static void *check_registers(void *unused)
{
	while (!stop) {
		long wrong;
		__asm__ volatile("mov $1, %%rbx\n mov $2, %%rdx\n mov $3, %%rsi\n mov $4, %%rdi\n mov $5, %%r8\n mov $6, %%r15\n"
				 "movq %%r15, %%xmm9\n mov $30000, %%ecx\n 1: dec %%ecx\n jnz 1b\n movq %%xmm9, %%rax\n"
				 "sub $6, %%rax\n sub $1, %%rbx\n or %%rbx, %%rax\n sub $2, %%rdx\n or %%rdx, %%rax\n"
				 "sub $3, %%rsi\n or %%rsi, %%rax\n sub $4, %%rdi\n or %%rdi, %%rax\n sub $5, %%r8\n or %%r8, %%rax\n"
				 "sub $6, %%r15\n or %%r15, %%rax\n or %%rcx, %%rax\n"
				 : "=a"(wrong) : : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r15", "xmm9", "cc");
		note_bad(wrong != 0);
	}
	return unused;
}

static void *check_calls(void *unused)
{
	double x = 0;
	while (!stop) {
		for (int i = 0; i < 1000; i++) {
			note_bad(getpid() != self);
			x += 1.0;
		}
		calls += 1000;
		note_bad(x != (double)(long)x);
	}
	return unused;
}

static void *check_pipe(void *unused)
{
	int fds[2];
	unsigned char out[64], in[64];
	if (pipe2(fds, O_CLOEXEC))
		return unused;
	for (unsigned n = 0; !stop; n++) {
		memset(out, n, sizeof out);
		note_bad(write(fds[1], out, sizeof out) != sizeof out);
		note_bad(read(fds[0], in, sizeof in) != sizeof in || memcmp(in, out, sizeof in));
		calls += 2;
	}
	close(fds[0]);
	close(fds[1]);
	return unused;
}

static void *check_memory(void *unused)
{
	for (unsigned n = 1; !stop; n++) {
		size_t size = 4096 * (1 + n % 40);
		unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED) {
			note_bad(1);
			continue;
		}
		note_bad(p[0] || p[size / 2] || p[size - 1]);
		memset(p, n, size);
		sched_yield();
		note_bad(p[0] != (unsigned char)n || p[size - 1] != (unsigned char)n);
		munmap(p, size);
		calls += 3;
	}
	return unused;
}

static void *return_argument(void *argument)
{
	return argument;
}

static void *start_threads(void *unused)
{
	while (!stop) {
		pthread_t t;
		void *result = unused;
		if (pthread_create(&t, NULL, return_argument, &self) == 0)
			note_bad(pthread_join(t, &result) || result != &self);
	}
	return unused;
}

int main(int argc, char **argv)
{
	static void *(*const kinds[])(void *) = {check_registers, check_calls, check_pipe, check_memory, start_threads};
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	int seconds = argc > 1 ? atoi(argv[1]) : 3, execs = 0, wrong_status = 0;
	struct sigaction action = {.sa_handler = storm, .sa_flags = SA_RESTART};
	pthread_t threads[ARRAY_SIZE(kinds)];
	self = getpid();
	sigaction(SIGALRM, &action, NULL);
	alarm_every_us(200);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		pthread_create(&threads[i], NULL, kinds[i], NULL);
	for (int64_t end = now_ns() + seconds * 1000000000LL; now_ns() < end; execs++)
		wrong_status += !exited_with(run_role("exit", "17"), 17);
	stop = 1;
	alarm_every_us(0);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		pthread_join(threads[i], NULL);
	tap_note("%ld signals, %ld checked system calls, %d programs started", signals_seen, calls, execs);
	CHECK(bad == 0, "registers, results and memory stayed right");
	CHECK(wrong_status == 0 && execs > 0, "every program ended with its status");
	CHECK(signals_seen > 100, "the signals did arrive");
	return tap_done();
}
