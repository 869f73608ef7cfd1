/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by several guest programs: clocks, children, and whether the kernel has an MMU. */
#ifndef NABLA_UTIL_H
#define NABLA_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define SELF "/proc/self/exe"
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The number after `name` in a file of /proc, or -1. */
static inline long number_after(const char *path, const char *name)
{
	char line[256];
	long value = -1;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (!strncmp(line, name, strlen(name)))
			value = strtol(line + strlen(name), NULL, 10);
	if (file)
		fclose(file);
	return value;
}

/* Sleeps the whole time, however many signals arrive. */
static inline void sleep_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* Waits until *flag is not 0, at most ms milliseconds; returns its value. */
static inline int wait_for(volatile int *flag, long ms)
{
	for (int64_t end = now_ns() + ms * 1000000LL; !*flag && now_ns() < end;)
		sleep_ms(1);
	return *flag;
}

/* Waits until a thread of this process sleeps in the kernel; 0 if it does not within 20 seconds. */
static inline int wait_until_asleep(pid_t thread)
{
	char path[64], line[256];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
	for (int64_t end = now_ns() + 20000000000; now_ns() < end; sleep_ms(1)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
		if (fd >= 0)
			close(fd);
		line[n < 0 ? 0 : n] = '\0';
		const char *name_end = strrchr(line, ')');
		if (name_end && name_end[1] == ' ' && name_end[2] == 'S')
			return 1;
	}
	return 0;
}

/* Only a kernel without MMU counts mmap copies in /proc/meminfo. */
static inline int no_mmu(void)
{
	static int known = -1;
	if (known < 0) {
		char line[128];
		FILE *f = fopen("/proc/meminfo", "re");
		known = 0;
		while (f && fgets(line, sizeof line, f))
			if (!strncmp(line, "MmapCopy:", 9))
				known = 1;
		if (f)
			fclose(f);
	}
	return known;
}

/* Starts this very program with one or two arguments (its "role"); returns the pid or -1. */
static inline pid_t start_role(const char *role, const char *argument)
{
	char *argv[] = {"child", (char *)role, (char *)argument, NULL};
	pid_t pid;
	int error = posix_spawn(&pid, SELF, NULL, NULL, argv, environ);
	if (error) {
		errno = error;
		return -1;
	}
	return pid;
}

/* The wait status of a child; -1 if there is none. */
static inline int wait_status(pid_t pid)
{
	int status;
	pid_t got;
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	return got == pid ? status : -1;
}

static inline int run_role(const char *role, const char *argument)
{
	pid_t pid = start_role(role, argument);
	return pid < 0 ? -1 : wait_status(pid);
}

static inline int exited_with(int status, int code)
{
	return status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static inline int killed_by(int status, int signal)
{
	return status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

static inline int is_role(int argc, char **argv, const char *role)
{
	return argc > 1 && !strcmp(argv[1], role);
}

/* Starts or (with 0) stops a periodic SIGALRM. */
static inline void alarm_every_us(long us)
{
	struct itimerval t = {{us / 1000000, us % 1000000}, {us / 1000000, us % 1000000}};
	setitimer(ITIMER_REAL, &t, NULL);
}

#endif
