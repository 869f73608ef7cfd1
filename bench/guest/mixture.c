// SPDX-License-Identifier: Apache-2.0
// A mixture of memory operations of programs, for some time: does free memory stay in large pieces?
//
//   mixture SECONDS [SEED]
//
// Programs of all sizes start, and half of them stay for a while; mappings of 4 KiB to 8 MiB, threads, files in /tmp and
// on the disk, and passed descriptors come and go, as long as half of the memory is free. It is a failure if a program
// does not start while a quarter of the memory is free. The report at the end compares the largest mapping with the free
// memory.
#define _GNU_SOURCE
#include "../tap.h"
#include "../util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { PAGE = 4096, MB = 1024 * 1024, HOLDERS = 48, MAPS = 96, FILES = 32, PAIRS = 16 };

static uint64_t state = 88172645463325252ULL;

static size_t below(size_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

/* 4 KiB to 8 MiB, each power of two as likely as the others */
static size_t some_size(void)
{
	size_t size = (size_t)PAGE << below(11);
	return (size + below(size + 1)) / PAGE * PAGE;
}

/* A number of /proc/meminfo, in bytes. */
static size_t memory(const char *name)
{
	char line[128];
	size_t value = 0;
	FILE *file = fopen("/proc/meminfo", "re");
	while (file && fgets(line, sizeof line, file))
		if (!strncmp(line, name, strlen(name)))
			value = strtoul(line + strlen(name), NULL, 10) << 10;
	if (file)
		fclose(file);
	return value;
}

/* including the page cache, which can be reclaimed */
static int much_is_free(size_t part)
{
	return memory("MemAvailable:") > memory("MemTotal:") / part;
}

static int failures;

static void fail(const char *what, long number)
{
	/* memory may have been taken by others in between, and be free again */
	tap_write(1, "%s %ld failed with %zu of %zu MB free\n", what, number, memory("MemAvailable:") / MB, memory("MemTotal:") / MB);
	failures++;
}

static struct map {
	char *start;
	size_t size;
} maps[MAPS];

static pid_t holders[HOLDERS];
static int pairs[PAIRS][2];

static void change_map(void)
{
	struct map *m = &maps[below(MAPS)];
	if (m->start) {
		if (m->start[m->size - 1] != (char)(m->size / PAGE))
			fail("the contents of a mapping of", (long)m->size);
		munmap(m->start, m->size);
		m->start = NULL;
	} else if (much_is_free(2)) {
		m->size = some_size();
		m->start = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (m->start == MAP_FAILED)
			m->start = NULL;
		else
			memset(m->start, (int)(m->size / PAGE), m->size);
	}
}

/* A program that has this much memory and waits for its end. */
static int hold(size_t size)
{
	char *p = malloc(size);
	if (!p)
		return 1;
	memset(p, 1, size);
	for (;;)
		pause();
}

static void change_holder(void)
{
	pid_t *one = &holders[below(HOLDERS)];
	if (*one) {
		kill(*one, SIGKILL);
		wait_status(*one);
		*one = 0;
	} else if (much_is_free(2)) {
		char number[24];
		snprintf(number, sizeof number, "%zu", some_size() / 4);
		*one = start_role("hold", number);
		if (*one < 0) {
			if (much_is_free(4))
				fail("the start of a program of", atol(number));
			*one = 0;
		}
	}
}

static void run_programs(void)
{
	static const char *const scripts[] = {
		"ls -lR /etc /usr/lib | sort | md5sum", "grep -r root /etc", "find / -xdev -type l | wc -l",
		"cat /bin/busybox /lib/ld-musl-x86_64.so.1 | gzip -1 | wc -c", "true", "for n in 1 2 3 4 5; do (true); done",
	};
	char script[200];
	pid_t pid;
	snprintf(script, sizeof script, "{ %s; } >/dev/null 2>&1", scripts[below(ARRAY_SIZE(scripts))]);
	char *argv[] = {"sh", "-c", script, NULL};
	int free_before = much_is_free(4), error = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
	int status = error ? -1 : wait_status(pid);
	/* `grep` and `find` may exit with 1 because of files that they cannot read */
	if (free_before && much_is_free(4) && (status < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1))
		fail("a script with status", status);
}

static void change_file(void)
{
	static char buffer[65536];
	char name[64];
	snprintf(name, sizeof name, "%s/mixture.%zu", below(3) ? "/tmp" : "/var/tmp", below(FILES));
	if (!unlink(name) || !much_is_free(2))
		return;
	int fd = open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	for (size_t left = some_size() / 8; left > 0;) {
		ssize_t n = write(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
		if (n <= 0)
			break;
		left -= n;
	}
	close(fd);
}

/* Data and a descriptor on its way, until the pair is used again. */
static void change_pair(void)
{
	static char data[30000];
	char control[CMSG_SPACE(sizeof(int))] = "";
	size_t i = below(PAIRS);
	if (pairs[i][0]) {
		close(pairs[i][0]);
		close(pairs[i][1]);
		pairs[i][0] = 0;
		return;
	}
	if (!much_is_free(2))
		return;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pairs[i])) {
		pairs[i][0] = 0;
		return;
	}
	struct iovec part = {data, sizeof data};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &pairs[i][0], sizeof(int));
	sendmsg(pairs[i][0], &message, 0);
}

static void *thread(void *size)
{
	char *p = malloc((size_t)size);
	if (p)
		memset(p, 1, (size_t)size);
	sleep_ms(1);
	free(p);
	return NULL;
}

static void run_threads(void)
{
	pthread_t t[6];
	size_t n = 0;
	while (n < ARRAY_SIZE(t) && !pthread_create(&t[n], NULL, thread, (void *)(some_size() / 16)))
		n++;
	while (n--)
		pthread_join(t[n], NULL);
}

static void fork_once(void)
{
	pid_t pid = fork();
	if (!pid) {
		for (size_t i = 0; i < MAPS; i++)
			if (maps[i].start && !below(4))
				maps[i].start[0] = 1;
		_exit(0);
	}
	if (pid > 0)
		wait_status(pid);
}

static size_t largest_mapping(void)
{
	size_t least = 0, most = memory("MemTotal:") / PAGE;
	while (most - least > 1) {
		size_t middle = (least + most) / 2;
		char *p = mmap(NULL, middle * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED) {
			most = middle;
		} else {
			least = middle;
			munmap(p, middle * PAGE);
		}
	}
	return least * PAGE;
}

int main(int argc, char **argv)
{
	static void (*const actions[])(void) = {
		change_map, change_map, change_map, change_holder, change_holder, change_file,
		change_file, change_pair, run_threads, run_programs, fork_once,
	};
	if (argc < 2)
		return 2;
	if (is_role(argc, argv, "hold"))
		return hold(strtoul(argv[2], NULL, 10));
	if (argc > 2)
		state ^= strtoul(argv[2], NULL, 10) << 20;
	long count = 0;
	for (int64_t end = now_ns() + atol(argv[1]) * 1000000000LL; now_ns() < end; count++)
		actions[below(ARRAY_SIZE(actions))]();
	/* the page cache is reclaimed for a mapping */
	size_t largest = largest_mapping(), available = memory("MemFree:");
	tap_write(1, "%ld actions, %d failures; %zu MB free, the largest mapping %zu MB\n", count, failures, available / MB, largest / MB);
	for (size_t i = 0; i < HOLDERS; i++)
		if (holders[i])
			kill(holders[i], SIGKILL);
	return failures != 0;
}
