// SPDX-License-Identifier: Apache-2.0
// Latencies of the basic operations, one JSON object on standard output, times in nanoseconds. The same binary runs in
// the guest and on the host. Each figure is the best of several batches: the cost of the undisturbed operation.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 5 };

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int first = 1;

/* Times `turns` calls of an operation, several times over, and prints the best mean. */
static void measure(const char *name, void (*operation)(void), int turns)
{
	double best = 1e18;
	for (int batch = 0; batch < BATCHES; batch++) {
		double began = now_ns();
		for (int i = 0; i < turns; i++)
			operation();
		double took = (now_ns() - began) / turns;
		best = took < best ? took : best;
	}
	printf("%s\n  \"%s\": %.1f", first ? "{" : ",", name, best);
	first = 0;
}

static int a[2], b[2], file;
static char byte = 'x', block[4096];

static void must(long good)
{
	if (!good) {
		perror("latency");
		exit(1);
	}
}

static void do_getppid(void)
{
	getppid();
}

static void do_raw_getppid(void)
{
	long number = SYS_getppid;
	__asm__ volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory");
}

/* Uses an instruction that cannot become a jump, because the instruction in front of it does not load its number. */
static void do_trapped_getppid(void)
{
	long number = SYS_getppid;
	__asm__ volatile("mov %%edx, %%eax\n syscall" : "=a"(number) : "d"(number) : "rcx", "r11", "memory");
}

static void do_clock(void)
{
	now_ns();
}

static void do_pipe(void)
{
	must(write(a[1], &byte, 1) == 1 && read(a[0], &byte, 1) == 1);
}

static void do_ping_pong(void)
{
	must(write(a[1], &byte, 1) == 1 && read(b[0], &byte, 1) == 1);
}

static void do_vfork(void)
{
	pid_t pid = vfork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static void do_exec(void)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execl("/proc/self/exe", "latency", "nothing", (char *)NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

static void *return_at_once(void *unused)
{
	return unused;
}

static void do_thread(void)
{
	pthread_t t;
	must(pthread_create(&t, NULL, return_at_once, NULL) == 0 && pthread_join(t, NULL) == 0);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void do_signal(void)
{
	raise(SIGUSR1);
}

static void do_open_close(void)
{
	close(open("/dev/null", O_RDONLY));
}

static void do_file_read(void)
{
	must(pread(file, block, sizeof block, 0) == sizeof block);
}

static void do_map(void)
{
	void *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(p != MAP_FAILED);
	*(volatile char *)p = 1;
	munmap(p, 65536);
}

static void map_file(int flags)
{
	void *p = mmap(NULL, 65536, PROT_READ, flags, file, 0);
	must(p != MAP_FAILED && *(volatile char *)p == 0);
	munmap(p, 65536);
}

static void do_map_private(void)
{
	map_file(MAP_PRIVATE);
}

static void do_map_shared(void)
{
	map_file(MAP_SHARED);
}

static void do_yield(void)
{
	sched_yield();
}

/* Answers each byte of one pipe in the other until the end of file. */
static void *answer(void *unused)
{
	char c;
	while (read(a[0], &c, 1) == 1 && write(b[1], &c, 1) == 1)
		;
	return unused;
}

static void fresh_pipes(void)
{
	must(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
}

static void close_pipes(void)
{
	close(a[0]);
	close(a[1]);
	close(b[0]);
	close(b[1]);
}

static void measure_switches(void)
{
	pthread_t t;
	fresh_pipes();
	must(pthread_create(&t, NULL, answer, NULL) == 0);
	measure("pipe_round_trip_threads", do_ping_pong, 20000);
	close(a[1]);
	pthread_join(t, NULL);
	close(a[0]);
	close(b[0]);
	close(b[1]);

	fresh_pipes();
	pid_t pid = vfork();
	if (pid == 0) {
		dup2(a[0], 0);
		dup2(b[1], 1);
		execl("/proc/self/exe", "latency", "answer", (char *)NULL);
		_exit(1);
	}
	measure("pipe_round_trip_processes", do_ping_pong, 20000);
	close_pipes();
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "nothing"))
		return 0;
	if (argc > 1 && !strcmp(argv[1], "answer")) {
		a[0] = 0;
		b[1] = 1;
		answer(NULL);
		return 0;
	}
	char path[] = "/tmp/latency-XXXXXX";
	must((file = mkstemp(path)) >= 0 && write(file, block, sizeof block) == sizeof block);
	must(ftruncate(file, 65536) == 0);
	unlink(path);
	signal(SIGUSR1, on_signal);
	measure("getppid", do_getppid, 200000);
	measure("getppid_by_instruction", do_raw_getppid, 20000);
	measure("getppid_trapped", do_trapped_getppid, 20000);
	measure("clock_gettime", do_clock, 200000);
	measure("sched_yield", do_yield, 50000);
	fresh_pipes();
	measure("pipe_write_and_read", do_pipe, 50000);
	close_pipes();
	measure("signal_to_self", do_signal, 20000);
	measure("open_close_dev_null", do_open_close, 20000);
	measure("read_4k_cached", do_file_read, 20000);
	measure("map_64k_touch_unmap", do_map, 5000);
	measure("map_64k_of_a_file_private", do_map_private, 2000);
	measure("map_64k_of_a_file_shared", do_map_shared, 2000);
	measure("thread_create_join", do_thread, 1000);
	measure("vfork_exit_wait", do_vfork, 500);
	measure("vfork_exec_wait", do_exec, 100);
	measure_switches();
	printf("\n}\n");
	return 0;
}
