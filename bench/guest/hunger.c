// SPDX-License-Identifier: Apache-2.0
// Processes that take all memory, in rounds, while a witness measures how long the VM takes to answer.
//
//   hunger KIND ROUNDS PROCESSES [MILLISECONDS]
//
// In each round, hungry processes take memory in one way until they are refused, killed, or the time is over. The witness
// starts a program repeatedly; "worst" is its longest wait. Innocent processes, older and younger than the hungry ones,
// must survive the round with their memory intact. KIND "all" uses each kind in turn, and "mixed" one kind after the
// other with 1 to PROCESSES processes.
#define _GNU_SOURCE
#include "../tap.h"
#include "../util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { PAGE = 4096, MB = 1024 * 1024, MOST = 64, INNOCENT = 3 };
static int64_t end_of_meal, meal = 300000000;
static int processes; /* hungry ones, in all */

static int hungry(void)
{
	return now_ns() < end_of_meal;
}

static void eat_memory(size_t step)
{
	for (char *p; hungry() && (p = malloc(step));)
		memset(p, 1, step);
}

static void by_malloc(void)
{
	eat_memory(PAGE);
}

static void by_mmap(void)
{
	char *p;
	for (size_t size = 64 * MB; size >= PAGE && hungry();)
		if ((p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED)
			memset(p, 1, size);
		else
			size /= 2;
}

/* A parent with memory, and children that write to it. */
static void by_forks(void)
{
	size_t size = 4 * MB;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return;
	memset(p, 1, size);
	for (int n = 0; n < 1 + MOST / processes && hungry(); n++) {
		pid_t pid = fork();
		if (pid < 0)
			break;
		if (!pid) {
			memset(p, n, size);
			eat_memory(PAGE);
			while (hungry())
				sleep_ms(10);
			_exit(0);
		}
	}
}

static void *thread(void *unused)
{
	(void)unused;
	eat_memory(64 * 1024);
	return NULL;
}

static void by_threads(void)
{
	pthread_t t[8];
	int n = 0;
	while (n < 8 && !pthread_create(&t[n], NULL, thread, NULL))
		n++;
	while (n--)
		pthread_join(t[n], NULL);
}

static void by_writing(int fd)
{
	static char buffer[65536];
	while (hungry() && write(fd, buffer, sizeof buffer) > 0)
		;
}

static void by_tmp(void)
{
	char name[40];
	snprintf(name, sizeof name, "/tmp/hunger.%d", getpid());
	by_writing(open(name, O_CREAT | O_WRONLY, 0600));
	while (hungry())
		sleep_ms(10);
}

static void by_memfd(void)
{
	by_writing(memfd_create("hunger", 0));
	while (hungry())
		sleep_ms(10);
}

static void by_sockets(void)
{
	static char buffer[65536];
	int pair[2];
	while (hungry() && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
		for (int i = 0; i < 2; i++)
			while (write(pair[i], buffer, sizeof buffer) > 0)
				;
	while (hungry())
		sleep_ms(10);
}

static void by_pipes(void)
{
	static char buffer[65536];
	int pair[2];
	while (hungry() && !pipe2(pair, O_NONBLOCK)) {
		fcntl(pair[1], F_SETPIPE_SZ, MB);
		while (write(pair[1], buffer, sizeof buffer) > 0)
			;
	}
	while (hungry())
		sleep_ms(10);
}

static void by_cache(void)
{
	static char buffer[65536];
	char name[40];
	snprintf(name, sizeof name, "/var/tmp/hunger.%d", getpid());
	int disk = open("/dev/ubda", O_RDONLY), file = open(name, O_CREAT | O_RDWR, 0600);
	unlink(name);
	for (off_t at = 0; hungry(); at += sizeof buffer) {
		if (read(disk, buffer, sizeof buffer) <= 0)
			lseek(disk, 0, SEEK_SET);
		if (pwrite(file, buffer, sizeof buffer, at % (32 * MB)) < 0)
			break;
	}
}

/* A file that is mapped completely, in addition to the process's other memory. */
static void by_mapped_files(void)
{
	char name[40];
	snprintf(name, sizeof name, "/tmp/hunger.%d", getpid());
	int fd = open(name, O_CREAT | O_RDWR, 0600);
	unlink(name);
	for (size_t size = 32 * MB; size >= 65536 && hungry(); size /= 2)
		if (!ftruncate(fd, size)) {
			char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			if (p != MAP_FAILED)
				memset(p, 1, size);
		}
	eat_memory(PAGE);
}

static const struct {
	const char *name;
	void (*eat)(void);
} kinds[] = {
	{"malloc", by_malloc}, {"mmap", by_mmap}, {"forks", by_forks}, {"threads", by_threads},
	{"tmp", by_tmp}, {"memfd", by_memfd}, {"sockets", by_sockets}, {"pipes", by_pipes},
	{"cache", by_cache}, {"mapped", by_mapped_files},
};

struct innocent {
	pid_t pid;
	int ask, answer;
	char *memory;
};

static int start_innocent(struct innocent *one)
{
	int ask[2], answer[2];
	if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		return -1;
	one->pid = fork();
	if (!one->pid) {
		size_t size = 512 * 1024;
		char byte, *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		close(ask[1]);
		if (p == MAP_FAILED)
			_exit(1);
		memset(p, 7, size);
		if (write(answer[1], "", 1) != 1)
			_exit(3);
		while (read(ask[0], &byte, 1) == 1) {
			for (size_t n = 0; n < size; n += PAGE)
				if (p[n] != 7)
					_exit(2);
			if (write(answer[1], "", 1) != 1)
				_exit(3);
		}
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	one->ask = ask[1];
	one->answer = answer[0];
	/* without memory it ends at once */
	char byte;
	return one->pid < 0 || read(answer[0], &byte, 1) != 1 ? -1 : 0;
}

static int answers(struct innocent *one)
{
	char byte;
	return write(one->ask, "", 1) == 1 && read(one->answer, &byte, 1) == 1;
}

static int end_innocent(struct innocent *one)
{
	close(one->ask);
	close(one->answer);
	return exited_with(wait_status(one->pid), 0);
}

static void note_answer(int64_t start, int64_t *worst)
{
	int64_t took = now_ns() - start;
	if (took > *worst)
		*worst = took;
}

/* Runs a round. Returns 0, or the problem. */
static const char *round_of(void (*eat)(void), int count, int64_t *worst, int *refused_starts)
{
	struct innocent old = {0}, young = {0};
	pid_t child[MOST];
	const char *wrong = NULL;
	int born = 0;
	processes = count;
	if (start_innocent(&old))
		return "no process before the meal";
	end_of_meal = now_ns() + meal;
	for (; born < count; born++) {
		child[born] = fork();
		if (child[born] < 0)
			break;
		if (!child[born]) {
			setpgid(0, 0);
			eat();
			_exit(0);
		}
		setpgid(child[born], child[born]);
	}
	int64_t since = now_ns();
	int has_young = !start_innocent(&young);
	note_answer(since, worst);
	while (hungry() && !wrong) {
		int64_t start = now_ns();
		int status = run_role("witness", "");
		/* without memory, a program does not start, or ends while it starts */
		if (!exited_with(status, 0))
			++*refused_starts;
		if (!answers(&old))
			wrong = "an older process was killed";
		if (has_young && !answers(&young))
			wrong = "a younger process was killed";
		note_answer(start, worst);
		sleep_ms(20);
	}
	end_of_meal = 0;
	since = now_ns();
	for (int i = 0; i < born; i++)
		kill(-child[i], SIGKILL);
	for (int i = 0; i < born; i++) {
		char name[40];
		snprintf(name, sizeof name, "/tmp/hunger.%d", child[i]);
		if (waitpid(child[i], NULL, 0) != child[i])
			wrong = "no end of a process";
		unlink(name);
	}
	note_answer(since, worst);
	/* the younger one also inherits the other's descriptors */
	if (has_young && !end_innocent(&young))
		wrong = "a younger process was killed or lost its memory";
	if (!end_innocent(&old))
		wrong = "an older process was killed or lost its memory";
	return wrong;
}

struct outcome {
	int64_t worst;
	int refused, failed;
};

static void rounds_of(size_t kind, int rounds, int count, struct outcome *sum)
{
	for (int n = 0; n < rounds; n++) {
		const char *wrong = round_of(kinds[kind].eat, count, &sum->worst, &sum->refused);
		if (wrong)
			tap_write(1, "%s by %d, round %d: %s\n", kinds[kind].name, count, n, wrong);
		sum->failed += wrong != NULL;
	}
}

static void report(const char *name, const struct outcome *sum)
{
	tap_write(1, "%s: worst answer %lld ms, %d starts refused, %d rounds failed\n", name, (long long)sum->worst / 1000000,
		  sum->refused, sum->failed);
}

int main(int argc, char **argv)
{
	struct outcome all = {0};
	if (is_role(argc, argv, "witness"))
		return 0;
	if (argc < 4)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	int rounds = atoi(argv[2]), most = atoi(argv[3]) < MOST ? atoi(argv[3]) : MOST;
	if (argc > 4)
		meal = atoi(argv[4]) * 1000000LL;
	if (!strcmp(argv[1], "mixed")) {
		/* 7 and 13 divide neither each other nor the number of kinds */
		for (int n = 0; n < rounds; n++)
			rounds_of(n * 7 % ARRAY_SIZE(kinds), 1, 1 + n * 13 % most, &all);
		report("mixed", &all);
		return all.failed != 0;
	}
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct outcome sum = {0};
		if (strcmp(argv[1], "all") && strcmp(argv[1], kinds[k].name))
			continue;
		rounds_of(k, rounds, most, &sum);
		report(kinds[k].name, &sum);
		all.failed += sum.failed;
	}
	return all.failed != 0;
}
