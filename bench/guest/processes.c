// SPDX-License-Identifier: Apache-2.0
// The cost of fork, depending on the memory of a process; one JSON object on standard output, times in microseconds. The
// same binary runs in the guest and on the host.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 400 };

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static int first = 1;

/* a low quantile of the times of single operations: undisturbed, but not an outlier */
static void measure(const char *name, void (*operation)(void), int turns)
{
	double times[MOST];
	operation();
	for (int i = 0; i < turns; i++) {
		double began = now_us();
		operation();
		times[i] = now_us() - began;
	}
	qsort(times, turns, sizeof *times, by_value);
	printf("%s\"%s\": %.2f", first ? "{" : ", ", name, times[turns / 10]);
	fflush(stdout);
	first = 0;
}

static void fork_exit(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		exit(1);
}

static void fork_exec(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "processes", "end", (char *)NULL);
		_exit(1);
	}
	int status = 1;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

static void vfork_exec(void)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execl("/proc/self/exe", "processes", "end", (char *)NULL);
		_exit(1);
	}
	int status = 1;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

static int down[2], up[2];

static void round_trip(void)
{
	char c = 'a';
	for (int i = 0; i < 100; i++)
		if (write(down[1], &c, 1) != 1 || read(up[0], &c, 1) != 1)
			exit(1);
}

/* with a forked child that has written as much as a typical program */
static void measure_round_trip(const char *name)
{
	if (pipe(down) || pipe(up))
		exit(1);
	pid_t pid = fork();
	if (pid == 0) {
		char c;
		close(down[1]);
		while (read(down[0], &c, 1) == 1)
			if (write(up[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	double best = 1e18;
	round_trip();
	for (int i = 0; i < 20; i++) {
		double began = now_us();
		round_trip();
		double took = (now_us() - began) / 100;
		best = took < best ? took : best;
	}
	printf(", \"%s\": %.2f", name, best);
	close(down[1]);
	waitpid(pid, NULL, 0);
	close(down[0]), close(up[0]), close(up[1]);
}

int main(int argc, char **argv)
{
	static const int sizes[] = {0, 1, 16, 128, 300};
	if (argc > 1 && !strcmp(argv[1], "end"))
		return 0;
	int largest = argc > 1 ? atoi(argv[1]) : 300;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= largest; i++) {
		char name[60];
		size_t size = (size_t)sizes[i] << 20;
		char *memory = NULL;
		if (size) {
			memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (memory == MAP_FAILED) {
				perror("mmap");
				return 1;
			}
			memset(memory, 1, size);
		}
		snprintf(name, sizeof name, "fork+exit+wait, %d MB", sizes[i]);
		measure(name, fork_exit, sizes[i] > 16 ? 20 : MOST);
		snprintf(name, sizeof name, "fork+exec+wait, %d MB", sizes[i]);
		measure(name, fork_exec, sizes[i] > 16 ? 20 : MOST);
		snprintf(name, sizeof name, "round trip with a child, %d MB", sizes[i]);
		measure_round_trip(name);
		if (!size)
			measure("vfork+exec+wait", vfork_exec, MOST);
		if (size)
			munmap(memory, size);
	}
	printf("}\n");
	return 0;
}
