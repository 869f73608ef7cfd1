// SPDX-License-Identifier: Apache-2.0
// Random trees of processes that change their memory in every possible way, and repeatedly check each byte.
//
//     fork_stress [FORKS [SEED]]
//
// The contents of a process's memory are a function of a number that it keeps for each of its areas.
#define _GNU_SOURCE
#include "areas.h"
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define DEPTH 5

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
	volatile char frame[300];
	memset((char *)frame, number, sizeof frame);
	signals += frame[299] == number;
}

static void *count(void *argument)
{
	volatile unsigned *counter = argument;
	for (int i = 0; i < 50; i++) {
		++*counter;
		sched_yield();
	}
	return NULL;
}

/* a child stops, and its parent reads and changes its memory */
static void trace(void)
{
	struct area *a = &areas[rnd(AREAS)];
	if (!a->at)
		return;
	size_t offset = rnd(a->pages * PAGE / 128) * 128;
	pid_t me = getpid(), pid = fork();
	if (pid < 0)
		return;
	if (pid == 0) {
		/* a killed tracer would leave it stopped forever */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != me)
			_exit(0);
		a->number ^= 0x1234;
		for (size_t o = 0; o < a->pages * PAGE; o += 128)
			*(unsigned *)(a->at + o) = word(a->number, o);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		unsigned poked = *(unsigned *)(a->at + offset);
		*(unsigned *)(a->at + offset) = word(a->number, offset);
		check(a, "in a traced child");
		_exit(poked == 0x11223344 ? 42 : 98);
	}
	__sync_fetch_and_add(&shared->forks, 1);
	int status;
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		return;
	errno = 0;
	unsigned number = a->number ^ 0x1234;
	unsigned seen = ptrace(PTRACE_PEEKDATA, pid, a->at + offset, 0);
	if (errno == 0 && seen != word(number, offset))
		bad("PTRACE_PEEKDATA");
	long high = ptrace(PTRACE_PEEKDATA, pid, a->at + offset, 0) & ~0xffffffffL;
	int poked = ptrace(PTRACE_POKEDATA, pid, a->at + offset, high | 0x11223344) == 0;
	check(a, "one's own, after PTRACE_POKEDATA");
	__sync_fetch_and_add(&shared->pokes, poked);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	status = wait_status(pid);
	if (poked && !exited_with(status, 42) && !killed_by(status, SIGKILL))
		bad("a traced child");
}

static void live(int depth);

static void give_birth(int depth)
{
	pid_t pid = fork();
	if (pid < 0) {
		__sync_fetch_and_add(&shared->refused, 1);
		return;
	}
	if (pid == 0) {
		state ^= getpid() * 7919;
		direct_fd = direct_fd < 0 ? -1 : direct_fd;
		live(depth + 1);
		_exit(0);
	}
	__sync_fetch_and_add(&shared->forks, 1);
	if (rnd(2))
		kill(pid, SIGUSR1);
	if (rnd(12) == 0) {
		kill(pid, SIGKILL);
		__sync_fetch_and_add(&shared->killed, 1);
	}
	if (rnd(2))
		wait_status(pid);
}

static void run_other(void)
{
	pid_t pid = rnd(2) ? vfork() : -2;
	if (pid == 0) {
		execl(SELF, "child", "exit", "7", (char *)NULL);
		_exit(7);
	}
	int status = pid == -2 ? run_role("exit", "7") : wait_status(pid);
	/* without memory it is killed at its start */
	if (status >= 0 && WIFEXITED(status) && !exited_with(status, 7))
		bad("another program");
	__sync_fetch_and_add(&shared->execs, 1);
}

static __attribute__((noinline)) void live(int depth)
{
	volatile unsigned char frame[400];
	unsigned char mark = rnd(256);
	memset((unsigned char *)frame, mark, sizeof frame);
	unsigned counted = 0;
	pthread_t thread;
	int has_thread = rnd(6) == 0 && pthread_create(&thread, NULL, count, &counted) == 0;
	for (int round = 0; round < 12 && shared->forks < shared->wanted && !shared->bad; round++) {
		mutate();
		check_all("at work");
		for (size_t i = 0; i < sizeof frame; i++)
			if (frame[i] != mark)
				bad("the stack");
		__sync_fetch_and_add(&shared->counter[rnd(64)], 1);
		if (rnd(5) == 0)
			sched_yield();
		if (depth < DEPTH && rnd(4) == 0)
			give_birth(depth);
		if (depth < DEPTH && rnd(25) == 0)
			trace();
		if (rnd(40) == 0)
			run_other();
	}
	if (has_thread) {
		pthread_join(thread, NULL);
		if (counted != 50)
			bad("a thread's counter");
	}
	while (wait(NULL) > 0 || errno == EINTR)
		;
	check_all("at the end");
}

static long meminfo(const char *name)
{
	char line[128];
	long value = 0;
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)))
			value = atol(line + strlen(name) + 1);
	if (f)
		fclose(f);
	return value;
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	int wanted = argc > 1 ? atoi(argv[1]) : 400;
	unsigned seed = argc > 2 ? atoi(argv[2]) : 1;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	signal(SIGUSR1, on_signal);
	direct_fd = open("fork-stress.tmp", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	if (direct_fd >= 0)
		unlink("fork-stress.tmp");
	meminfo("MmapCopy:");
	long before = meminfo("MmapCopy:");
	int ended = 0, unlucky = 0;
	shared->wanted = wanted;
	for (unsigned tree = 0; shared->forks < wanted && !shared->bad; tree++) {
		pid_t pid = fork();
		if (pid == 0) {
			state = (seed + tree) * 2654435761U;
			live(0);
			_exit(0);
		}
		if (pid < 0) {
			shared->refused++;
			sleep_ms(1);
			continue;
		}
		shared->forks++;
		int status = wait_status(pid);
		ended++;
		/* the process that lacks memory is killed */
		if (!exited_with(status, 0))
			unlucky++;
	}
	CHECK(shared->bad == 0, "every byte is as its process left it");
	CHECK(shared->forks >= wanted, "as many forks as wanted");
	tap_note("%d trees, %d forks, %d refused, %d killed, %d ended early, %d programs, %d pokes, %d parts unmapped, "
		 "%d direct", ended, shared->forks, shared->refused, shared->killed, unlucky, shared->execs, shared->pokes,
		 shared->unmapped, shared->direct);
	/* the last orphans, which init waits for */
	long after = 0;
	for (int i = 0; i < 500; i++) {
		after = meminfo("MmapCopy:");
		if (after == before)
			break;
		sleep_ms(10);
	}
	tap_note("mapped memory before and after: %ld and %ld KB", before, after);
	CHECK(after == before, "all memory came back");
	return tap_done();
}
