// SPDX-License-Identifier: Apache-2.0
// Programs that are linked to an address: one, several at the same one, their forks and threads, and the view of the
// kernel and of debuggers on those that are not in place.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "relink.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { USUAL = 0x400000, ROUNDS = 100, WORDS = 64 << 10 };

#define ORIGINAL "/usr/lib/nabla-tests/static_linked"

static char directory[] = "/tmp/linked-XXXXXX", path[80];
static volatile unsigned long data[WORDS] = {4711}, room[WORDS];

static const char *program(Elf64_Addr base)
{
	snprintf(path, sizeof path, "%s/at-%lx", directory, (unsigned long)base);
	if (access(path, X_OK) && !relink(ORIGINAL, path, base))
		tap_note("cannot make %s", path);
	return path;
}

/* --- what the programs do ---------------------------------------------------------------- */

static void fill(unsigned long seed)
{
	for (int i = 0; i < WORDS; i++) {
		data[i] = seed + i;
		room[i] = seed ^ i;
	}
}

static int holds(unsigned long seed)
{
	int good = 1;
	for (int i = 0; i < WORDS; i++)
		good = good && data[i] == seed + i && room[i] == (seed ^ i);
	return good;
}

static int fresh(void)
{
	int good = data[0] == 4711;
	for (int i = 1; i < WORDS; i++)
		good = good && !data[i] && !room[i];
	return good;
}

/* Answers each byte with 'y', or 'n' if its memory is not what it has written. */
static int play(unsigned long seed)
{
	char byte;
	if (!fresh())
		return 1;
	for (unsigned long turn = 0; read(0, &byte, 1) == 1; turn++) {
		byte = !turn || holds(seed + turn - 1) ? 'y' : 'n';
		fill(seed + turn);
		if (write(1, &byte, 1) != 1)
			return 2;
	}
	return 0;
}

static int forks(void)
{
	fill(1);
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();
		if (!pid) {
			int good = holds(1);
			fill(100 + i);
			sched_yield();
			_exit(good && holds(100 + i) ? 30 + i : 1);
		}
		sched_yield();
		if (!holds(1) || !exited_with(wait_status(pid), 30 + i) || !holds(1))
			return 1;
	}
	return 0;
}

static void *count(void *argument)
{
	for (int i = 0; i < 20000; i++) {
		__atomic_add_fetch(&room[0], 1, __ATOMIC_RELAXED);
		if (!(i & 1023))
			sched_yield();
	}
	return argument;
}

static int threads(void)
{
	pthread_t thread[4];
	for (int i = 0; i < 4; i++)
		if (pthread_create(&thread[i], NULL, count, NULL))
			return 1;
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	return room[0] != 80000;
}

/* Executes itself repeatedly, by vfork, like compilers that start their parts. */
static int chain(char **argv)
{
	int left = atoi(argv[2]);
	char less[12], *next[] = {argv[0], "chain", less, NULL};
	fill(left);
	if (!left)
		return 5;
	snprintf(less, sizeof less, "%d", left - 1);
	pid_t pid = vfork();
	if (!pid) {
		execve(SELF, next, environ);
		_exit(1);
	}
	return exited_with(wait_status(pid), 5) && holds(left) ? 5 : 1;
}

/* Waits at an address until somebody wakes it, or a byte comes. */
static int sleeper(void)
{
	struct timespec soon = {0, 200000000};
	fill(9);
	if (write(1, "r", 1) != 1)
		return 1;
	long got = syscall(SYS_futex, &room[8], FUTEX_WAIT, (int)room[8], &soon, NULL, 0);
	return got == -1 && errno == ETIMEDOUT && holds(9) ? 0 : 1;
}

/* System calls with its own addresses, none of which has been touched. */
static int calls(void)
{
	int pipes[2];
	char *at = (char *)room;
	if (pipe(pipes) || write(pipes[1], at, 100) != 100 || read(pipes[0], at + 8192, 100) != 100)
		return 1;
	return !getcwd(at + 16384, 4096) || at[16384] != '/';
}

/* --- and who starts them ------------------------------------------------------------------- */

struct child {
	pid_t pid;
	int to, from;
};

static struct child start(Elf64_Addr base, const char *role, const char *argument)
{
	int to[2], from[2];
	struct child c = {-1, -1, -1};
	char *argv[] = {(char *)program(base), (char *)role, (char *)argument, NULL};
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		return c;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, to[0], 0);
	posix_spawn_file_actions_adddup2(&actions, from[1], 1);
	errno = posix_spawn(&c.pid, argv[0], &actions, NULL, argv, environ);
	if (errno)
		c.pid = -1;
	posix_spawn_file_actions_destroy(&actions);
	close(to[0]);
	close(from[1]);
	c.to = to[1];
	c.from = from[0];
	return c;
}

static int ask(struct child c)
{
	char byte = 'x';
	return write(c.to, &byte, 1) == 1 && read(c.from, &byte, 1) == 1 && byte == 'y';
}

/* The exit status; -1 if a signal ended it. */
static int end(struct child c)
{
	close(c.to);
	int status = wait_status(c.pid);
	close(c.from);
	return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(Elf64_Addr base, const char *role, const char *argument)
{
	return end(start(base, role, argument));
}

static void test_one(void)
{
	static const Elf64_Addr bases[] = {0x200000, USUAL, 0x10000000, 0x50000000, 0x5f000000};
	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		char name[80], where[24];
		snprintf(name, sizeof name, "a program at %#lx", (unsigned long)bases[i]);
		snprintf(where, sizeof where, "%lu", (unsigned long)bases[i]);
		CHECK(run(bases[i], "where", where) == 3, name);
	}
	CHECK(run(USUAL, "fresh", "") == 0, "the next one finds the contents of the file");
	CHECK(run(USUAL, "calls", "") == 0, "the kernel reads and writes there");
	CHECK(run(USUAL, "forks", "") == 0, "it forks");
	CHECK(run(USUAL, "threads", "") == 0, "it has threads");
	CHECK(run(USUAL, "chain", "6") == 5, "it starts itself by vfork, and so on");
}

static void test_several(void)
{
	struct child c[4];
	char seed[12];
	int good = 1;
	for (int i = 0; i < 4; i++) {
		snprintf(seed, sizeof seed, "%d", 1000 * i);
		c[i] = start(i == 3 ? USUAL + 0x40000 : USUAL, "play", seed);
	}
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < 4; i++)
			good = good && ask(c[(i * 3 + round) % 4]);
	CHECK(good, "four at overlapping addresses take turns");
	CHECK(run(USUAL, "forks", "") == 0 && run(USUAL, "threads", "") == 0 && run(USUAL, "chain", "4") == 5,
	      "others fork, have threads and start programs at the same time");
	kill(c[0].pid, SIGKILL);
	CHECK(end(c[0]) == -1, "one is killed");
	for (int round = 0; round < 10; round++)
		for (int i = 1; i < 4; i++)
			good = good && ask(c[i]);
	CHECK(good, "and disturbs nobody");
	for (int i = 1; i < 4; i++)
		good = !end(c[i]) && good;
	CHECK(good, "all end");
}

static void test_seen(void)
{
	struct child a = start(USUAL, "play", "1"), b = start(USUAL, "play", "2"), s;
	unsigned long word = 0;
	struct iovec local = {&word, sizeof word};
	struct iovec remote = {NULL, sizeof word};
	char byte;
	ask(a);
	ask(b);
	s = start(USUAL, "address", "");
	CHECK(read(s.from, &remote.iov_base, sizeof remote.iov_base) == sizeof remote.iov_base && !end(s), "an address");
	remote.iov_base = (char *)remote.iov_base + 7 * sizeof word;
	CHECK(process_vm_readv(a.pid, &local, 1, &remote, 1, 0) == sizeof word && word == 8, "another's memory is read");
	CHECK(process_vm_readv(b.pid, &local, 1, &remote, 1, 0) == sizeof word && word == 9, "and that of one beside it");
	char file[64], line[128] = "";
	snprintf(file, sizeof file, "/proc/%d/mem", a.pid);
	int fd = open(file, O_RDWR | O_CLOEXEC);
	CHECK(pread(fd, &word, sizeof word, (off_t)remote.iov_base) == sizeof word && word == 8, "by /proc/PID/mem");
	close(fd);
	CHECK(ptrace(PTRACE_ATTACH, b.pid, 0, 0) == 0 && waitpid(b.pid, NULL, 0) == b.pid &&
		      ptrace(PTRACE_POKEDATA, b.pid, remote.iov_base, 77) == 0 &&
		      ptrace(PTRACE_PEEKDATA, b.pid, remote.iov_base, 0) == 77, "a debugger writes");
	CHECK(process_vm_readv(a.pid, &local, 1, &remote, 1, 0) == sizeof word && word == 8, "to one of them only");
	CHECK(ptrace(PTRACE_POKEDATA, b.pid, remote.iov_base, 9) == 0 && ptrace(PTRACE_DETACH, b.pid, 0, 0) == 0 && ask(b) &&
		      ask(a), "both continue");
	snprintf(file, sizeof file, "/proc/%d/maps", a.pid);
	FILE *maps = fopen(file, "re");
	int listed = 0;
	while (maps && fgets(line, sizeof line, maps))
		listed |= strtoul(line, NULL, 16) == USUAL;
	if (maps)
		fclose(maps);
	CHECK(listed, "/proc/PID/maps lists it");
	CHECK(!end(a) && !end(b), "and end");
	a = start(USUAL, "sleeper", "");
	s = start(USUAL, "waker", "");
	CHECK(read(a.from, &byte, 1) == 1 && end(s) == 0 && end(a) == 0, "a futex at the same address is another one");
}

/* --- the main program ------------------------------------------------------------------------ */

static int play_role(char **argv)
{
	const char *role = argv[1];
	void *address = (void *)data;
	if (!strcmp(role, "where"))
		return (uintptr_t)&play - strtoul(argv[2], NULL, 10) < 0x100000 && fresh() ? 3 : 1;
	if (!strcmp(role, "fresh"))
		return !fresh();
	if (!strcmp(role, "play"))
		return play(strtoul(argv[2], NULL, 10));
	if (!strcmp(role, "forks"))
		return forks();
	if (!strcmp(role, "threads"))
		return threads();
	if (!strcmp(role, "chain"))
		return chain(argv);
	if (!strcmp(role, "calls"))
		return calls();
	if (!strcmp(role, "sleeper"))
		return sleeper();
	if (!strcmp(role, "waker"))
		return syscall(SYS_futex, &room[8], FUTEX_WAKE, 1, NULL, NULL, 0) != 0;
	if (!strcmp(role, "address"))
		return write(1, &address, sizeof address) != sizeof address;
	return 99;
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return play_role(argv);
	if (!mkdtemp(directory))
		return 2;
	test_one();
	test_several();
	test_seen();
	static const char *const made[] = {"at-200000", "at-400000", "at-440000", "at-10000000", "at-50000000", "at-5f000000"};
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		snprintf(path, sizeof path, "%s/%s", directory, made[i]);
		unlink(path);
	}
	rmdir(directory);
	return tap_done();
}
