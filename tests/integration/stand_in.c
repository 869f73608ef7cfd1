// SPDX-License-Identifier: Apache-2.0
// A program that nabla-run starts instead of the kernel: it executes the words of its command one after the other, so
// that tests see what a VM would receive, and how nabla-run handles a VM that misbehaves.
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STATUS_FD 12

static void say(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

static void print_descriptors(void)
{
	char name[64], target[4096];
	for (int fd = 0; fd < 65536; fd++) {
		snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(name, target, sizeof target - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		printf("%d %s\n", fd, target);
	}
}

static void print_file(const char *path)
{
	char line[4096];
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		fputs(line, stdout);
}

static volatile unsigned char *status_page(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, STATUS_FD, 0);
	if (page == MAP_FAILED) {
		perror("status page");
		exit(99);
	}
	return page;
}

static void print_window(void)
{
	volatile uint16_t *size = (volatile uint16_t *)(status_page() + 24);
	volatile uint32_t *flags = (volatile uint32_t *)(status_page() + 32);
	printf("window %u %u flags %u\n", size[0], size[1], *flags);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Like a kernel, with two counted calls, the second of which the host does not know. */
static void fill_page(void)
{
	volatile uint64_t *page = (volatile uint64_t *)status_page();
	memcpy((void *)page, "nablast1", 8);
	page[1] = page[2] = now_ns();
	((volatile uint32_t *)page)[9] = 2;
	page[8] = SYS_ppoll;
	page[9] = 7;
	page[10] = 99999;
	page[11] = UINT64_MAX;
}

static void fill_page_with_lies(void)
{
	memset((void *)status_page(), 0xff, 4096);
	memcpy((void *)status_page(), "nablast1", 8);
}

static void fail_to_grow_page(void)
{
	if (ftruncate(STATUS_FD, 8192) == 0 || ftruncate(STATUS_FD, 0) == 0)
		say("the page can be resized");
	else
		say("sealed");
}

static void wait_for(int number)
{
	sigset_t set;
	int got;
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_BLOCK, &set, NULL);
	say("waiting");
	sigwait(&set, &got);
}

static void print_keys(int count)
{
	unsigned char key;
	while (count-- > 0 && read(STDIN_FILENO, &key, 1) == 1)
		printf("%02x ", key);
	say("");
}

/* Writes a number of bytes, or endlessly if it is negative. */
static void write_lines(int fd, long count)
{
	static char block[1 << 16];
	memset(block, 'x', sizeof block);
	while (count != 0) {
		size_t size = count < 0 || count > (long)sizeof block ? sizeof block : (size_t)count;
		ssize_t written = write(fd, block, size);
		if (written < 0)
			exit(88);
		count -= count < 0 ? 0 : written;
	}
}

/* Writes to every page of a private mapping, as a guest does to a copy-on-write disk. */
static void change_disk(int mib)
{
	size_t size = (size_t)mib << 20;
	volatile char *disk = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 4, 0);
	if (disk == MAP_FAILED)
		exit(89);
	for (size_t at = 0; at < size; at += 4096)
		disk[at] = 1;
}

/* Forwards bytes in both directions between the standard streams and a descriptor, until one side ends. */
static void bridge(int fd)
{
	static char bytes[1 << 16];
	struct pollfd wait[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	for (;;) {
		poll(wait, 2, -1);
		for (int i = 0; i < 2; i++) {
			if (!wait[i].revents)
				continue;
			ssize_t got = read(wait[i].fd, bytes, sizeof bytes);
			if (got <= 0)
				return;
			for (ssize_t at = 0; at < got;) {
				ssize_t written = write(i ? STDOUT_FILENO : fd, bytes + at, (size_t)(got - at));
				if (written <= 0)
					return;
				at += written;
			}
		}
	}
}

static void burn(void)
{
	for (volatile unsigned long n = 0;; n++)
		;
}

static int is(const char *word, const char *name)
{
	return !strcmp(word, name);
}

int main(int argc, char **argv, char **env)
{
	char line[256];
	int i = 1;
	while (i < argc && strcmp(argv[i], "--"))
		i++;
	for (i++; i < argc; i++) {
		if (strncmp(argv[i], "arg=", 4))
			continue;
		char *word = argv[i] + 4, *value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		int number = value ? atoi(value) : 0;
		if (is(word, "say"))
			say(value);
		else if (is(word, "environment"))
			printf("%d variables\n", *env != NULL);
		else if (is(word, "descriptors"))
			print_descriptors();
		else if (is(word, "show"))
			print_file(value);
		else if (is(word, "window"))
			print_window();
		else if (is(word, "page"))
			fill_page();
		else if (is(word, "lies"))
			fill_page_with_lies();
		else if (is(word, "resize"))
			fail_to_grow_page();
		else if (is(word, "ignore"))
			signal(number, SIG_IGN);
		else if (is(word, "await"))
			wait_for(number);
		else if (is(word, "nap"))
			usleep((useconds_t)number * 1000);
		else if (is(word, "keys"))
			print_keys(number);
		else if (is(word, "line"))
			(void)!fgets(line, sizeof line, stdin);
		else if (is(word, "kill"))
			kill(getpid(), number);
		else if (is(word, "exit"))
			exit(number);
		else if (is(word, "out"))
			write_lines(STDOUT_FILENO, value ? atol(value) : -1);
		else if (is(word, "err"))
			write_lines(STDERR_FILENO, value ? atol(value) : -1);
		else if (is(word, "change"))
			change_disk(number);
		else if (is(word, "bridge"))
			bridge(number);
		else if (is(word, "burn"))
			burn();
		else if (is(word, "stay"))
			for (;;)
				pause();
	}
	fflush(stdout);
	return 0;
}
