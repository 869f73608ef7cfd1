// SPDX-License-Identifier: Apache-2.0
// System calls with arguments of the right kinds and wrong values, by jump and by instruction, from many processes
// at once, as root and as an ordinary user. Any of them may die; the VM may not. Another process makes the remaining
// calls of a dead one.
// Arguments: seed, calls of each process, processes, and "fork" if these are to fork while they make calls. Environment:
// SHOW=1 prints each call before it is made.
#define _GNU_SOURCE
#include "../util.h"
#include "arguments.h"
#include "fuzz.h"

#include <grp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filesystems.h"
#include "pointless.h"
#include "signatures.h"

#define NOBODY 65534
#define MOST 64

static struct child {
	pid_t pid;
	unsigned long time;
	int idle; /* reads it without a change */
	word made;
	int64_t since; /* `made` has not changed since then */
	word deaths, idle_deaths, before; /* `idle_deaths`: in a row, without a call; `before`: calls at the last death */
} children[MOST];

/* The number of calls of each of them and of its children: shared memory. */
static word *made;

static word gate, bases[2];
static struct {
	word start, length;
} maps[16];
static size_t map_count;

static long call(int jump, long number, const word *a)
{
	register word r10 __asm__("r10") = a[3];
	register word r8 __asm__("r8") = a[4];
	register word r9 __asm__("r9") = a[5];
	register word r11 __asm__("r11") = jump ? gate : 0;
	long result;
	__asm__ volatile(GATE_INLINE
			 : "=a"(result), "+r"(r11)
			 : "0"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "memory", "cc");
	return result;
}

static void on_signal(int signal)
{
	(void)signal;
}

/* Every call ends in time: the timer's signal restarts nothing. */
static void keep_alive(void)
{
	static const int others[] = {1, 2, 3, 6, 10, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 29, 30};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t none;
	stack_t off = {.ss_flags = SS_DISABLE};
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		sigaction(others[i], &action, NULL);
	for (int n = SIGRTMIN; n <= SIGRTMAX; n++)
		sigaction(n, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sigaltstack(&off, NULL);
	alarm_every_us(1000);
}

static int large = -1; /* a file of 8 MB, of which most are holes */

/* Mappings of all kinds, and operations on them; only memory that was mapped here is unmapped. */
static void map(void)
{
	static const int flags[] = {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED};
	size_t i = map_count ? fuzz_below(map_count) : 0;
	word kind = fuzz_below(8);
	if (!map_count || (kind < 3 && map_count < ARRAY_SIZE(maps))) {
		word more = fuzz_one_in(4) ? fuzz_any() & ~(word)(MAP_FIXED) : 0;
		word a[6] = {fuzz_one_in(4) ? fuzz_border() : 0, fuzz_one_in(8) ? fuzz_any() : fuzz_below(300000), fuzz_below(8),
			     fuzz_pick(flags) | more, descriptor(), fuzz_one_in(3) ? 4096 * fuzz_below(20) : 0};
		if (fuzz_one_in(3)) { /* a reservation, which becomes memory where it is touched */
			a[1] = (word)(1 << 20) << fuzz_below(17);
			a[2] = fuzz_one_in(2) ? PROT_NONE : PROT_READ | PROT_WRITE;
			a[3] = MAP_PRIVATE | MAP_ANONYMOUS | (a[2] ? MAP_NORESERVE : 0);
		} else if (fuzz_one_in(3)) { /* a file, which is read where it is touched */
			a[1] = (4 + fuzz_below(8)) << 20;
			a[2] = PROT_READ | fuzz_below(8);
			a[3] = MAP_PRIVATE;
			a[4] = fuzz_one_in(2) ? (word)large : descriptor();
		}
		if (fuzz_one_in(3)) { /* an address that other processes may have, too */
			a[0] = 0x10000000 + 4096 * fuzz_below(4000) + (fuzz_one_in(20) ? fuzz_any() : 0);
			a[3] |= fuzz_one_in(2) ? MAP_FIXED_NOREPLACE : 0;
		}
		long start = call(1, SYS_mmap, a);
		if (start > 0 || start < -4095) {
			maps[map_count].start = start;
			maps[map_count++].length = (a[1] + 4095) & ~4095UL;
		}
		return;
	}
	word start = maps[i].start, length = maps[i].length, part = 4096 * fuzz_below(length / 4096 + 1);
	word a[6] = {start, length, 0};
	switch (kind) {
	case 3:
		call(1, SYS_munmap, a);
		maps[i] = maps[--map_count];
		break;
	case 4: /* a part; the rest is lost to us */
		a[fuzz_below(2)] = part ? part : 4096;
		a[0] = a[0] < start ? start : a[0];
		call(1, SYS_munmap, a);
		maps[i] = maps[--map_count];
		break;
	case 5: {
		word b[6] = {start, fuzz_one_in(4) ? size() : length, fuzz_one_in(2) ? 4096 * fuzz_below(100) : fuzz_any(),
			     fuzz_below(4), fuzz_border()};
		call(1, SYS_mremap, b);
		maps[i] = maps[--map_count];
		break;
	}
	case 6: {
		word b[6] = {start + (fuzz_one_in(3) ? part : 0), fuzz_one_in(3) ? size() : length, number()};
		call(1, fuzz_one_in(2) ? SYS_mprotect : SYS_madvise, b);
		break;
	}
	default: {
		word b[6] = {start + (fuzz_one_in(3) ? part : 0), fuzz_one_in(3) ? size() : length,
			     fuzz_one_in(2) ? 7 : fuzz_below(4), MAP_FIXED | (fuzz_one_in(3) ? MAP_SHARED : fuzz_pick(flags)),
			     fuzz_one_in(4) ? (word)large : descriptor(), fuzz_one_in(3) ? 4096 * fuzz_below(20) : 0};
		call(1, SYS_mmap, b);
	}
	}
}

/* The child makes its own calls beside its parent's, in memory that looks the same. */
static word fork_here(word left)
{
	static int depth;
	word seed = fuzz_word();
	pid_t pid;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (depth == 3 || (pid = fork()))
		return left;
	depth++;
	fuzz_seed(seed);
	keep_alive();
	return left < 300 ? left : 300;
}

static void add(int fd)
{
	if (fd >= 0 && descriptor_count < (int)ARRAY_SIZE(descriptors))
		descriptors[descriptor_count++] = fd;
}

static void open_all(void)
{
	static const char *const files[] = {
		"/tmp/fuzz/a", "/var/tmp/fuzz/a", "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/ptmx",
		"/dev/loop-control", "/proc/self/oom_score_adj",
	};
	static const char *const readable[] = {"/tmp/fuzz", "/var/tmp/fuzz", "/proc", "/", "/proc/self/mem", "/proc/self/maps",
					       "/proc/self/status", "/proc/self/smaps", "/proc/self/ns/uts"};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
	int pair[2];
	sigset_t usr1;
	for (size_t i = 0; i < 4; i++)
		mkdir((const char *[]){"/tmp/fuzz", "/tmp/fuzz/d", "/var/tmp/fuzz", "/var/tmp/fuzz/d"}[i], 0777);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		add(open(files[i], O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, 0666));
	for (size_t i = 0; i < ARRAY_SIZE(readable); i++)
		add(open(readable[i], O_RDONLY | O_NONBLOCK));
	add(open(fuzz_pick(paths), O_RDONLY | O_NONBLOCK | O_NOCTTY));
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (!socketpair(AF_UNIX, types[i] | SOCK_NONBLOCK, 0, pair)) {
			add(pair[0]);
			add(pair[1]);
		}
		add(socket(AF_INET, types[i] | SOCK_NONBLOCK, 0));
		add(socket(AF_INET6, types[i] | SOCK_NONBLOCK, 0));
	}
	if (!pipe2(pair, O_NONBLOCK)) {
		add(pair[0]);
		add(pair[1]);
	}
	add(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, fuzz_below(22)));
	add(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(3)));
	add(socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, fuzz_below(256)));
	add(epoll_create1(0));
	add(eventfd(0, EFD_NONBLOCK));
	add(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	add(inotify_init1(IN_NONBLOCK));
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	add(signalfd(-1, &usr1, SFD_NONBLOCK));
	add(syscall(434 /* pidfd_open */, getpid(), 0));
	add(memfd_create("fuzz", 0));
	/* only to be mapped: reading it would overwrite what is behind the arena */
	large = open("/var/tmp/fuzz/large", O_RDWR | O_CREAT, 0666);
	if (large >= 0 && (ftruncate(large, 8 << 20) || pwrite(large, "large", 5, 5 << 20) != 5))
		large = -1;
}

static void close_all(void)
{
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	descriptor_count = 0;
}

static void work(word seed, word calls, word *mine, int forks, int show)
{
	static const struct rlimit files = {16 << 20, 16 << 20};
	fuzz_seed(seed);
	root = getuid() == 0;
	gate = getauxval(AT_SYSINFO);
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | (fuzz_one_in(2) ? MAP_NORESERVE : 0), -1, 0);
	if (arena == MAP_FAILED)
		exit(3);
	syscall(SYS_arch_prctl, 0x1003, &bases[0]);
	setrlimit(RLIMIT_FSIZE, &files);
	for (word n = 0; n < calls; n++) {
		const struct signature *known = &fuzz_pick(signatures);
		long number = known->number;
		word a[6];
		if (n % 64 == 0)
			keep_alive();
		if (n % 2000 == 0) {
			close_all();
			open_all();
		}
		if (fuzz_one_in(20)) {
			map();
			continue;
		}
		if (root && fuzz_one_in(200))
			mount_tmpfs();
		if (fuzz_one_in(100))
			label_and_allocate();
		if (forks && fuzz_one_in(100))
			calls = n + fork_here(calls - n);
		for (size_t i = 0; i < 6; i++)
			a[i] = argument(i < strlen(known->kinds) && !fuzz_one_in(12) ? known->kinds[i] : '?');
		if (fuzz_one_in(50)) {
			number = fuzz_one_in(2) ? (long)fuzz_below(460) : (long)fuzz_any();
			for (size_t i = 0; i < 6; i++)
				a[i] = bounded(a[i]);
		}
		if (pointless(number, a))
			continue;
		if (show)
			dprintf(2, "%lu: %ld(%lx, %lx, %lx, %lx, %lx, %lx)\n", n, number, a[0], a[1], a[2], a[3], a[4], a[5]);
		long result = call(!fuzz_one_in(4), number, a);
		__atomic_fetch_add(mine, 1, __ATOMIC_RELAXED);
		if (number == SYS_arch_prctl)
			__asm__ volatile("mov $158, %%eax\n mov $0x1002, %%edi\n syscall"
					 : : "S"(bases[0]) : "rax", "rdi", "rcx", "r11", "memory");
		if (result > 2 && result < 1024 && fuzz_one_in(4) && descriptor_count < 60)
			add(result);
	}
}

/* Processor time of a process so far, in ticks; it changes as long as the process makes calls. */
static unsigned long time_of(pid_t pid)
{
	char path[40], text[512] = "";
	unsigned long user = 0, system = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || !strrchr(text, ')'))
		text[0] = 0;
	else
		sscanf(strrchr(text, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
	close(fd);
	return user + system;
}

/* Ends processes that sleep or are stopped forever, or whose timers expire faster than they can handle the signals. */
static void end_idle(word count)
{
	for (word i = 0; i < count; i++) {
		if (!children[i].pid)
			continue;
		unsigned long now = time_of(children[i].pid);
		if (made[i] != children[i].made) {
			children[i].made = made[i];
			children[i].since = now_ns();
		} else if (now_ns() - children[i].since > 5000000000) {
			kill(children[i].pid, SIGKILL);
		}
		if (now != children[i].time)
			children[i].idle = 0;
		else if (++children[i].idle > 10)
			kill(children[i].pid, SIGKILL);
		children[i].time = now;
	}
}

/*
 * Returns 1 if processes for these calls die again and again before they make one, or cannot start: files, segments,
 * and queues that stay have used up all memory, or root has written to the disk or unmounted what it needs.
 */
static int bury(struct child *child, word calls)
{
	child->pid = 0;
	child->deaths++;
	child->idle_deaths = calls == child->before ? child->idle_deaths + 1 : 0;
	child->before = calls;
	return child->idle_deaths > 100;
}

/* Starts a process for the remaining calls of `i`; its exec removes all state of the previous one. */
static int start(word i, word seed, word calls, int fd, char *forks)
{
	struct child *child = &children[i];
	char words[4][24];
	snprintf(words[0], sizeof words[0], "%lu", seed + i + child->deaths * 1000003);
	snprintf(words[1], sizeof words[1], "%lu", calls - made[i]);
	snprintf(words[2], sizeof words[2], "%lu", i);
	snprintf(words[3], sizeof words[3], "%d", fd);
	char *arguments[] = {SELF, words[0], words[1], "0", i & 1 ? "user" : "root", words[2], words[3], forks, NULL};
	child->idle = 0;
	child->since = now_ns();
	return posix_spawn(&child->pid, SELF, NULL, NULL, arguments, environ) && bury(child, made[i]);
}

static word *tally(int fd)
{
	word *all = mmap(NULL, MOST * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (all == MAP_FAILED)
		exit(3);
	return all;
}

int main(int argc, char **argv)
{
	word seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1, calls = argc > 2 ? strtoul(argv[2], NULL, 0) : 10000;
	word processes = argc > 3 ? strtoul(argv[3], NULL, 0) : 4, left, all = 0, died = 0, full = 0;
	if (processes == 0) {
		made = tally(atoi(argv[6]));
		if (*argv[4] == 'u' && (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
			return 1;
		work(seed, calls, &made[atoi(argv[5])], argc > 7, getenv("SHOW") != NULL);
		return 0;
	}
	int fd = memfd_create("tally", 0);
	if (processes > MOST || ftruncate(fd, MOST * sizeof *made))
		return 2;
	made = tally(fd);
	/* a process that ends leaves its stopped children as an orphaned group, and the kernel hangs up on all of it */
	signal(SIGHUP, SIG_IGN);
	umask(0);
	do {
		left = 0;
		for (word i = 0; i < processes; i++) {
			if (!children[i].pid && made[i] < calls)
				full |= start(i, seed, calls, fd, argv[4]);
			left += children[i].pid || made[i] < calls;
		}
		for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
			for (word i = 0; i < processes; i++) {
				if (children[i].pid == pid)
					full |= bury(&children[i], made[i]);
			}
		}
		sleep_ms(20);
		end_idle(processes);
	} while (left && !full);
	for (word i = 0; i < processes; i++) {
		all += made[i];
		died += children[i].deaths - 1;
	}
	printf("calls: %lu calls from %lu processes, %lu died\n", all, processes + died, died);
	if (full)
		printf("calls: ended early, no process starts\n");
	return 0;
}
