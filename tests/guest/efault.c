// SPDX-License-Identifier: Apache-2.0
// Bad pointers in system calls: EFAULT to the caller (or the signal), never harm to the kernel.
#define _GNU_SOURCE
#include "gate.h"
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Page 0, far outside, non-canonical, the very top: all kinds of addresses outside the program's memory. */
static const unsigned long bad_addresses[] = {8, 0x1000, 0x123456789000, 0x7ffffffff000, 0x8000000000000000, -4096UL, -8UL};

/* Marks the pointer in an argument list. */
#define BAD (-0x7bad0000L)

struct call {
	const char *name;
	long number;
	long arguments[6];
	long other; // a second errno that is as good, 0 for none
};

static int devices[2]; // a pipe
static int pair[2];
static int file, epoll;

static long perform(unsigned long gate, const struct call *call, unsigned long bad)
{
	long a[6];
	for (int i = 0; i < 6; i++)
		a[i] = call->arguments[i] == BAD ? (long)bad : call->arguments[i];
	long result;
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	register unsigned long r11 __asm__("r11") = gate;
	__asm__ volatile(GATE_INLINE
			 : "=a"(result), "+r"(r11)
			 : "0"(call->number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "memory", "cc");
	return result;
}

static void test_all(unsigned long gate)
{
	static struct iovec vector = {(void *)0x123456789000, 100};
	static struct msghdr message = {.msg_iov = (void *)0x1000, .msg_iovlen = 1};
	static struct timespec zero;
	const struct call calls[] = {
		{"read from a pipe", SYS_read, {devices[0], BAD, 4}, 0},
		{"write to a pipe", SYS_write, {devices[1], BAD, 4}, 0},
		{"read of a file", SYS_pread64, {file, BAD, 100, 0}, 0},
		{"write of a file", SYS_pwrite64, {file, BAD, 100, 0}, 0},
		{"big write of a file", SYS_pwrite64, {file, BAD, 100000, 0}, 0},
		{"readv with a bad vector", SYS_readv, {file, BAD, 1}, 0},
		{"writev with a bad vector", SYS_writev, {file, BAD, 1}, 0},
		{"open", SYS_open, {BAD, O_RDONLY}, 0},
		{"stat, path", SYS_stat, {BAD, (long)&zero}, 0},
		{"stat, result", SYS_stat, {(long)"/", BAD}, 0},
		{"fstat", SYS_fstat, {file, BAD}, 0},
		{"statx", SYS_statx, {AT_FDCWD, (long)"/", 0, 0x7ff, BAD}, 0},
		{"getdents64", SYS_getdents64, {file + 1, BAD, 4096}, 0},
		{"getcwd", SYS_getcwd, {BAD, 4096}, 0},
		{"readlink", SYS_readlink, {(long)"/proc/self/exe", BAD, 64}, 0},
		{"chdir", SYS_chdir, {BAD}, 0},
		{"rename, new name", SYS_rename, {(long)"/", BAD}, 0},
		{"unlink", SYS_unlink, {BAD}, 0},
		{"pipe2", SYS_pipe2, {BAD, 0}, 0},
		{"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, BAD}, 0},
		{"sendto", SYS_sendto, {pair[0], BAD, 10, 0, 0, 0}, 0},
		{"recvfrom", SYS_recvfrom, {pair[1], BAD, 1, MSG_DONTWAIT, 0, 0}, 0},
		{"sendmsg, header", SYS_sendmsg, {pair[0], BAD, 0}, 0},
		{"getsockopt", SYS_getsockopt, {pair[0], SOL_SOCKET, SO_TYPE, BAD, (long)&vector}, 0},
		{"getsockname", SYS_getsockname, {pair[0], BAD, BAD}, 0},
		{"poll", SYS_poll, {BAD, 1, 0}, 0},
		{"select", SYS_select, {8, BAD, 0, 0, 0}, 0},
		{"epoll_ctl", SYS_epoll_ctl, {epoll, EPOLL_CTL_ADD, devices[0], BAD}, 0},
		{"nanosleep", SYS_nanosleep, {BAD, 0}, 0},
		{"clock_gettime", SYS_clock_gettime, {CLOCK_REALTIME, BAD}, 0},
		{"gettimeofday", SYS_gettimeofday, {BAD, 0}, 0},
		{"time", SYS_time, {BAD}, 0},
		{"timer_create", SYS_timer_create, {CLOCK_REALTIME, BAD, BAD}, 0},
		{"setitimer", SYS_setitimer, {0, BAD, 0}, 0},
		{"rt_sigaction, new", SYS_rt_sigaction, {SIGUSR1, BAD, 0, 8}, 0},
		{"rt_sigaction, old", SYS_rt_sigaction, {SIGUSR1, 0, BAD, 8}, 0},
		{"rt_sigprocmask", SYS_rt_sigprocmask, {SIG_BLOCK, BAD, 0, 8}, 0},
		{"rt_sigpending", SYS_rt_sigpending, {BAD, 8}, 0},
		{"sigaltstack", SYS_sigaltstack, {BAD, 0}, 0},
		{"futex", SYS_futex, {BAD, 0 /* FUTEX_WAIT */, 0, (long)&zero}, 0},
		{"execve, path", SYS_execve, {BAD, 0, 0}, 0},
		{"execve, arguments", SYS_execve, {(long)"/proc/self/exe", BAD, 0}, 0},
		{"getrusage", SYS_getrusage, {0, BAD}, 0},
		{"times", SYS_times, {BAD}, 0},
		{"getrlimit", SYS_getrlimit, {7, BAD}, 0},
		{"prlimit64", SYS_prlimit64, {0, 7, BAD, 0}, 0},
		{"uname", SYS_uname, {BAD}, 0},
		{"sysinfo", SYS_sysinfo, {BAD}, 0},
		{"getrandom", SYS_getrandom, {BAD, 16, 0}, 0},
		{"sched_getaffinity", SYS_sched_getaffinity, {0, 128, BAD}, 0},
		{"setgroups", SYS_setgroups, {1, BAD}, EPERM},
		{"mount", SYS_mount, {BAD, (long)"/", BAD, 0, 0}, EPERM},
		{"ioctl FIONREAD", SYS_ioctl, {devices[0], 0x541b, BAD}, 0},
		{"fcntl F_GETLK", SYS_fcntl, {file, F_GETLK, BAD}, 0},
		{"setsockopt", SYS_setsockopt, {pair[0], SOL_SOCKET, SO_SNDBUF, BAD, 4}, 0},
		{"clone3", 435, {BAD, 88}, ENOSYS},
	};
	char name[128];
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		int good = 0;
		for (size_t j = 0; j < ARRAY_SIZE(bad_addresses); j++) {
			long result = perform(gate, &calls[i], bad_addresses[j]);
			if (result == -EFAULT || (calls[i].other && result == -calls[i].other))
				good++;
			else
				tap_note("%s at %#lx: %ld", calls[i].name, bad_addresses[j], result);
		}
		snprintf(name, sizeof name, "%s: EFAULT for each bad pointer", calls[i].name);
		CHECK(good == (int)ARRAY_SIZE(bad_addresses), name);
	}
	CHECK(writev(devices[1], &vector, 1) == -1 && errno == EFAULT, "writev: a good vector of bad pointers");
	CHECK(sendmsg(pair[0], &message, 0) == -1 && errno == EFAULT, "sendmsg: a good header with a bad vector");
}

/* A buffer that begins in memory and ends outside: a partial result or an error, but no harm. */
static void test_half_good(void)
{
	ssize_t n = write(devices[1], "good", 4);
	char text[8] = "";
	CHECK(n == 4 && read(devices[0], text, 8) == 4 && !memcmp(text, "good", 4), "the pipe still works");
	struct iovec mixed[2] = {{"part", 4}, {(void *)0x123456789000, 10}};
	n = writev(devices[1], mixed, 2);
	CHECK(n == 4 || (n == -1 && errno == EFAULT), "writev, the second part bad: the first or nothing");
	if (n > 0)
		CHECK(read(devices[0], text, 8) == 4, "and it arrived");
}

static int role(const char *name)
{
	if (!strcmp(name, "bad-sigreturn")) { // not a frame
		__asm__ volatile("mov $0x1000, %%rsp\n mov $15, %%eax\n syscall" : : : "memory");
		return 1;
	}
	if (!strcmp(name, "bad-handler-stack")) { // no room for the frame
		struct sigaction action = {.sa_handler = (void (*)(int))(void *)role};
		sigaction(SIGUSR1, &action, NULL);
		__asm__ volatile("mov %0, %%rdi\n mov %1, %%esi\n mov $0x1000, %%rsp\n mov $62, %%eax\n syscall\n ud2"
				 : : "r"((long)getpid()), "i"(SIGUSR1) : "rdi", "rsi", "memory");
		return 1;
	}
	if (!strcmp(name, "bad-handler")) {
		struct sigaction action = {.sa_handler = (void (*)(int))0x123456789000};
		sigaction(SIGUSR1, &action, NULL);
		raise(SIGUSR1);
		return 1;
	}
	if (!strcmp(name, "bad-robust-list")) { // read by the kernel when the thread ends
		syscall(SYS_set_robust_list, 0x123456789000, 24);
		syscall(SYS_set_tid_address, 0x123456789000);
		return 0;
	}
	if (!strcmp(name, "bad-child-tid")) {
		// CLONE_VM, CLONE_VFORK, CLONE_CHILD_SETTID; inline, as the child shares this stack
		long tid = gate_call(0, SYS_clone, 0x01004100 | SIGCHLD, 0, 0, 0x123456789000);
		if (tid == 0)
			_exit(0);
		return tid < 0;
	}
	return 2;
}

static void test_asynchronous(void)
{
	CHECK(killed_by(run_role("bad-sigreturn", NULL), SIGSEGV), "sigreturn without a frame: SIGSEGV");
	CHECK(killed_by(run_role("bad-handler-stack", NULL), SIGSEGV), "no stack for a handler: SIGSEGV");
	CHECK(killed_by(run_role("bad-handler", NULL), SIGSEGV), "a handler at a wild address: SIGSEGV");
	CHECK(exited_with(run_role("bad-robust-list", NULL), 0), "a wild robust list does no harm");
	CHECK(exited_with(run_role("bad-child-tid", NULL), 0), "a wild address for the child's id does no harm");
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "raw"))
		return role(argv[1]);
	unsigned long gate = gate_for(argc, argv);
	char path[] = "/tmp/nabla-efault-XXXXXX";
	file = mkstemp(path);
	if (file < 0 || open("/", O_RDONLY | O_DIRECTORY) != file + 1 || ftruncate(file, 200000) || pipe(devices) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || write(devices[1], "x", 1) != 1 || write(pair[0], "x", 1) != 1)
		return 2;
	epoll = epoll_create1(0);
	unlink(path);
	signal(SIGSEGV, SIG_DFL);
	test_all(gate);
	// The data that the calls left in the pipe.
	fcntl(devices[0], F_SETFL, O_NONBLOCK);
	while (read(devices[0], path, sizeof path) > 0)
		;
	test_half_good();
	test_asynchronous();
	return tap_done();
}
