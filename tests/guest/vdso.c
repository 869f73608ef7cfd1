// SPDX-License-Identifier: Apache-2.0
// The guest's vDSO: it matches vdso(7), its clocks agree with the system calls, and a program that breaks its own calls
// there ends only itself.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <elf.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

typedef int (*clock_function)(clockid_t clock, struct timespec *ts);

static const char *base;
static const Elf64_Sym *symbols;
static const char *strings;
static const uint32_t *hash;

/* Reads the dynamic section as a libc does; returns the library's name. */
static const char *read_image(void)
{
	const Elf64_Ehdr *eh = (const void *)base;
	const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);
	const Elf64_Dyn *dynamic = NULL;
	uint64_t name = 0;
	for (int i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_DYNAMIC)
			dynamic = (const void *)(base + ph[i].p_offset);
	for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
		const void *place = base + dynamic->d_un.d_ptr;
		if (dynamic->d_tag == DT_SYMTAB)
			symbols = place;
		if (dynamic->d_tag == DT_STRTAB)
			strings = place;
		if (dynamic->d_tag == DT_HASH)
			hash = place;
		if (dynamic->d_tag == DT_SONAME)
			name = dynamic->d_un.d_val;
	}
	return strings ? strings + name : "";
}

static uint32_t elf_hash(const char *name)
{
	uint32_t value = 0;
	for (; *name; name++) {
		value = (value << 4) + (unsigned char)*name;
		value = (value ^ (value >> 24 & 0xf0)) & 0x0fffffff;
	}
	return value;
}

static void *lookup(const char *name)
{
	const uint32_t *buckets = hash + 2, *chain = buckets + hash[0];
	for (uint32_t i = buckets[elf_hash(name) % hash[0]]; i; i = chain[i])
		if (!strcmp(strings + symbols[i].st_name, name))
			return (void *)(base + symbols[i].st_value);
	return NULL;
}

static int64_t ns(const struct timespec *ts)
{
	return ts->tv_sec * INT64_C(1000000000) + ts->tv_nsec;
}

/* The library's time lies between two of the kernel's, and the kernel's between two of the library's. */
static int agrees(clock_function gettime, clockid_t clock, int rounds)
{
	struct timespec last, now;
	int64_t before = 0;
	for (int i = 0; i < rounds; i++) {
		if (syscall(SYS_clock_gettime, clock, &last) || ns(&last) < before)
			return 0;
		if (gettime(clock, &now) || ns(&now) < ns(&last) || now.tv_nsec < 0 || now.tv_nsec >= 1000000000)
			return 0;
		before = ns(&now);
	}
	return 1;
}

static sigjmp_buf back;

static void on_fault(int sig)
{
	siglongjmp(back, sig);
}

static volatile sig_atomic_t ticks;

static void on_tick(int sig)
{
	(void)sig;
	ticks++;
}

int main(void)
{
	base = (const char *)getauxval(AT_SYSINFO_EHDR);
	if (!CHECK(base && !memcmp(base, ELFMAG, SELFMAG), "AT_SYSINFO_EHDR is an ELF image"))
		return tap_done();
	CHECK(!((uintptr_t)base & 4095), "it begins a page");
	CHECK(!strcmp(read_image(), "linux-vdso.so.1"), "its name");
	clock_function gettime = (clock_function)lookup("__vdso_clock_gettime");
	clock_function getres = (clock_function)lookup("__vdso_clock_getres");
	int (*today)(struct timeval *, void *) = (int (*)(struct timeval *, void *))lookup("__vdso_gettimeofday");
	time_t (*seconds)(time_t *) = (time_t(*)(time_t *))lookup("__vdso_time");
	long (*getcpu)(unsigned *, unsigned *, void *) = (long (*)(unsigned *, unsigned *, void *))lookup("__vdso_getcpu");
	if (!CHECK(gettime && getres && today && seconds && getcpu, "its functions"))
		return tap_done();
	CHECK(!lookup("__vdso_sgx_enter_enclave"), "and no other");

	static const clockid_t clocks[] = {CLOCK_REALTIME,	CLOCK_MONOTONIC,       CLOCK_MONOTONIC_RAW,
					   CLOCK_BOOTTIME,	CLOCK_TAI,	       CLOCK_REALTIME_COARSE,
					   CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
	int good = 1;
	for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++)
		good = agrees(gettime, clocks[i], 20000) && good;
	CHECK(good, "each clock agrees with the system call, and none goes back");
	struct timespec ts, resolution;
	struct timeval tv;
	/* With its first tick the kernel changes to high resolution, with its second the library. */
	for (int tick = 0; tick < 3; tick++) {
		struct timespec before;
		gettime(CLOCK_MONOTONIC_COARSE, &before);
		do
			gettime(CLOCK_MONOTONIC_COARSE, &ts);
		while (ns(&ts) == ns(&before));
	}
	good = 1;
	for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++)
		good = !getres(clocks[i], &ts) && !syscall(SYS_clock_getres, clocks[i], &resolution) &&
		       ns(&ts) == ns(&resolution) && good;
	CHECK(good, "resolutions");
	CHECK(gettime(12345, &ts) == -EINVAL && gettime(-1, &ts) == -EINVAL, "an unknown clock");
	syscall(SYS_clock_gettime, CLOCK_REALTIME, &resolution);
	CHECK(!today(&tv, NULL) && tv.tv_sec - resolution.tv_sec >= 0 && tv.tv_sec - resolution.tv_sec < 60, "gettimeofday");
	time_t now = 0;
	CHECK(seconds(&now) == now && now >= resolution.tv_sec - 1 && seconds(NULL) >= now, "time");
	unsigned cpu = 7, node = 7;
	CHECK(!getcpu(&cpu, &node, NULL) && cpu == 0 && node == 0, "getcpu");

	struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &often, NULL);
	for (good = 1; ticks < 2000 && good;)
		good = agrees(gettime, CLOCK_MONOTONIC, 100);
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(good, "signals find the library's code like the program's");

	if (!geteuid()) {
		syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts);
		struct timespec later = {ts.tv_sec + 86400, 0};
		good = !clock_settime(CLOCK_REALTIME, &later) && !gettime(CLOCK_REALTIME, &resolution) &&
		       resolution.tv_sec - later.tv_sec >= 0 && resolution.tv_sec - later.tv_sec < 60;
		CHECK(!clock_settime(CLOCK_REALTIME, &ts) && good, "the clock is set, and the library shows it");
	}

	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	static void *const wild[] = {(void *)8, (void *)0x8000000000000000, (void *)-8};
	good = 1;
	for (unsigned i = 0; i < 3; i++) {
		int sig = sigsetjmp(back, 1);
		/* without a vDSO of the host, the library makes a system call */
		if (!sig)
			good = gettime(CLOCK_MONOTONIC, wild[i]) == -EFAULT && good;
	}
	CHECK(good, "a wild pointer is the program's own SIGSEGV, or EFAULT");
	pid_t child = fork();
	if (!child) {
		signal(SIGSEGV, SIG_DFL);
		((void (*)(void))(base + 4000))();
		_exit(0);
	}
	int status = 0;
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status), "a jump behind its code ends the program");
	CHECK(agrees(gettime, CLOCK_MONOTONIC, 1000), "the VM is still there");
	return tap_done();
}
