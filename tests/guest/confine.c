// SPDX-License-Identifier: Apache-2.0
// Means by which programs confine themselves and others: seccomp, namespaces, control groups; and overlay and loop
// devices, which container tools mount.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* A filter for one system call; all others are allowed. */
static int forbid(int number, unsigned int verdict)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, verdict),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static volatile int caught_number;

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	caught_number = info->si_syscall;
}

static int filtered(const char *how)
{
	struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	if (!strcmp(how, "errno")) {
		if (forbid(SYS_getppid, SECCOMP_RET_ERRNO | 77))
			return 1;
		errno = 0;
		/* Through libc, and by the instruction. */
		long result;
		__asm__ volatile("syscall" : "=a"(result) : "0"((long)SYS_getppid) : "rcx", "r11", "memory");
		return syscall(SYS_getppid) == -1 && errno == 77 && result == -77 && getpid() > 1 ? 0 : 2;
	}
	if (!strcmp(how, "trap")) {
		sigaction(SIGSYS, &action, NULL);
		if (forbid(SYS_getppid, SECCOMP_RET_TRAP))
			return 1;
		syscall(SYS_getppid);
		return caught_number == SYS_getppid ? 0 : 3;
	}
	if (!strcmp(how, "kill")) {
		if (forbid(SYS_getppid, SECCOMP_RET_KILL_PROCESS))
			return 1;
		syscall(SYS_getppid);
		return 4;
	}
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		return 1;
	if (!strcmp(how, "strict"))
		syscall(SYS_exit, 0);
	syscall(SYS_getpid);
	return 5;
}

static void test_filters(void)
{
	CHECK(exited_with(run_role("filtered", "errno"), 0), "a filter makes a call fail");
	CHECK(exited_with(run_role("filtered", "trap"), 0), "a filter raises SIGSYS");
	CHECK(killed_by(run_role("filtered", "kill"), SIGSYS), "a filter kills");
	CHECK(exited_with(run_role("inherited", ""), 0), "a filter is inherited by fork");
	CHECK(exited_with(run_role("filtered", "strict"), 0), "strict mode lets a program end");
	CHECK(killed_by(run_role("filtered", "too much"), SIGKILL), "and kills it for anything else");
}

static int separated(void)
{
	struct utsname names;
	char link[2][64] = {"", ""};
	if (readlink("/proc/self/ns/net", link[0], 63) < 0)
		return 1;
	if (unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET))
		return 2;
	if (sethostname("inner", 5) || uname(&names) || strcmp(names.nodename, "inner"))
		return 3;
	if (readlink("/proc/self/ns/net", link[1], 63) < 0 || !strcmp(link[0], link[1]))
		return 4;
	/* Process 1 of a separate namespace. */
	if (unshare(CLONE_NEWPID))
		return 5;
	return exited_with(run_role("first", ""), 0) ? 0 : 6;
}

/* fork() in a PID namespace: its first process, orphans that become its children, and the end of all with it. */
static int forked(void)
{
	int ends[2];
	char c;
	if (unshare(CLONE_NEWPID) || pipe(ends))
		return 1;
	pid_t first = fork();
	if (first == 0) {
		if (getpid() != 1 || fork() == 0)
			_exit(10);
		if (!exited_with(wait_status(2), 10))
			_exit(11);
		pid_t child = fork();
		if (child == 0) {
			if (fork() == 0) {
				/* an orphan: its parent becomes process 1 */
				while (getppid() != 1)
					sched_yield();
				_exit(7);
			}
			_exit(0);
		}
		int status;
		pid_t orphan;
		if (!exited_with(wait_status(child), 0) || (orphan = wait(&status)) <= child || !exited_with(status, 7))
			_exit(12);
		if (fork() == 0) {
			/* ends with process 1, which closes the pipe */
			for (;;)
				pause();
		}
		_exit(0);
	}
	close(ends[1]);
	if (!exited_with(wait_status(first), 0) || read(ends[0], &c, 1) != 0)
		return 2;
	/* without process 1 there is no room for more */
	return fork() == -1 && errno == ENOMEM ? 0 : 3;
}

/* A filter applies to later children, but not to the parent of the process that installed it. */
static int inherited(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		if (forbid(SYS_getppid, SECCOMP_RET_ERRNO | 77))
			_exit(1);
		pid = fork();
		if (pid == 0)
			_exit(syscall(SYS_getppid) == -1 && errno == 77 ? 0 : 1);
		_exit(exited_with(wait_status(pid), 0) ? 0 : 2);
	}
	return exited_with(wait_status(pid), 0) && syscall(SYS_getppid) > 0 ? 0 : 3;
}

static int own_user(void)
{
	/* after setuid() /proc/self belongs to root until the process may be dumped again */
	if (setuid(65534) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) || unshare(CLONE_NEWUSER))
		return 1;
	int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
	return write(fd, "0 65534 1", 9) == 9 && getuid() == 0 ? 0 : 2;
}

static void test_namespaces(void)
{
	struct utsname names;
	CHECK(exited_with(run_role("separated", ""), 0), "namespaces: UTS, IPC, mount, network, PID");
	CHECK(uname(&names) == 0 && strcmp(names.nodename, "inner"), "outside nothing has changed");
	CHECK(exited_with(run_role("forked", ""), 0), "fork in a PID namespace");
	CHECK(exited_with(run_role("user", ""), 0), "a user namespace of an ordinary user");
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

static int limited(void)
{
	if (!put("/tmp/groups/few/cgroup.procs", "0"))
		return 1;
	if (fork() != -1 || errno != EAGAIN)
		return 3;
	return start_role("first", "") == -1 && errno == EAGAIN ? 0 : 2;
}

/* A child of this process counts in shared memory; while its group is frozen, it does not. */
static void test_freezer(void)
{
	volatile long *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char text[64];
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			++*count;
	snprintf(text, sizeof text, "%d", pid);
	CHECK(mkdir("/tmp/groups/cold", 0755) == 0 && put("/tmp/groups/cold/cgroup.procs", text) &&
		      put("/tmp/groups/cold/cgroup.freeze", "1"),
	      "a group is frozen");
	/* the file reports when all of it stands still */
	do {
		int fd = open("/tmp/groups/cold/cgroup.events", O_RDONLY | O_CLOEXEC);
		text[read(fd, text, sizeof text - 1)] = 0;
		close(fd);
	} while (!strstr(text, "frozen 1"));
	long before = *count;
	sleep_ms(50);
	CHECK(*count == before, "its forked process stands still");
	put("/tmp/groups/cold/cgroup.freeze", "0");
	while (*count == before)
		sched_yield();
	CHECK(put("/tmp/groups/cold/cgroup.kill", "1") && killed_by(wait_status(pid), SIGKILL), "continues, and is killed");
	rmdir("/tmp/groups/cold");
	munmap((void *)count, 4096);
}

static void test_groups(void)
{
	mkdir("/tmp/groups", 0755);
	CHECK(mount("none", "/tmp/groups", "cgroup2", 0, NULL) == 0, "control groups");
	CHECK(put("/tmp/groups/cgroup.subtree_control", "+pids +cpu") && mkdir("/tmp/groups/few", 0755) == 0,
	      "controllers pids and cpu");
	CHECK(put("/tmp/groups/few/pids.max", "1") && put("/tmp/groups/few/cpu.max", "50000 100000"), "their limits");
	CHECK(exited_with(run_role("limited", ""), 0), "a limit on processes holds");
	test_freezer();
	CHECK(rmdir("/tmp/groups/few") == 0 && umount("/tmp/groups") == 0, "and is taken away");
}

static void test_mounts(void)
{
	const char *folders[] = {"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/both"};
	char device[32];
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		mkdir(folders[i], 0755);
	close(open("/tmp/lower/below", O_CREAT | O_CLOEXEC, 0644));
	CHECK(mount("none", "/tmp/both", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work") == 0,
	      "an overlay");
	close(open("/tmp/both/above", O_CREAT | O_CLOEXEC, 0644));
	CHECK(!access("/tmp/both/below", F_OK) && !access("/tmp/upper/above", F_OK) && access("/tmp/lower/above", F_OK),
	      "shows both layers and writes to the upper one");
	CHECK(umount("/tmp/both") == 0, "unmounted");

	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number = ioctl(control, LOOP_CTL_GET_FREE);
	int file = open("/root/disk", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	snprintf(device, sizeof device, "/dev/loop%d", number);
	int loop = open(device, O_RDWR | O_CLOEXEC);
	CHECK(ftruncate(file, 1 << 20) == 0 && ioctl(loop, LOOP_SET_FD, file) == 0, "a loop device");
	CHECK(pwrite(loop, "block", 5, 4096) == 5 && fsync(loop) == 0, "is written");
	char text[6] = "";
	CHECK(pread(file, text, 5, 4096) == 5 && !strcmp(text, "block"), "to its file");
	CHECK(setxattr("/root/disk", "security.note", "x", 1, 0) == 0 &&
		      getxattr("/root/disk", "security.note", text, sizeof text) == 1,
	      "attributes of security");
	CHECK(ioctl(loop, LOOP_CLR_FD, 0) == 0, "and taken apart");
	close(loop);
	close(file);
	unlink("/root/disk");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "filtered"))
		return filtered(argv[2]);
	if (is_role(argc, argv, "separated"))
		return separated();
	if (is_role(argc, argv, "forked"))
		return forked();
	if (is_role(argc, argv, "inherited"))
		return inherited();
	if (is_role(argc, argv, "user"))
		return own_user();
	if (is_role(argc, argv, "limited"))
		return limited();
	if (is_role(argc, argv, "first"))
		return getpid() == 1 ? 0 : 7;
	test_filters();
	test_namespaces();
	test_groups();
	test_mounts();
	return tap_done();
}
