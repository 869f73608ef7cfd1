// SPDX-License-Identifier: Apache-2.0
// Files under /proc and /sys that programs read, uname, sysinfo, random numbers, the auxiliary vector.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <cpuid.h>
#include <dirent.h>
#include <elf.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <ucontext.h>

static char text[65536];

static long slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long got = 0, n;
	while ((n = read(fd, text + got, sizeof text - 1 - got)) > 0)
		got += n;
	text[got] = 0;
	close(fd);
	return fd < 0 ? -1 : got;
}

static int has(const char *path, const char *word)
{
	return slurp(path) > 0 && strstr(text, word);
}

static void test_self(const char *own_name)
{
	char link[256] = "", expected[256];
	ssize_t n = readlink("/proc/self/exe", link, sizeof link - 1);
	CHECK(n > 0 && strstr(link, "procfs"), "/proc/self/exe names this program");
	CHECK(slurp("/proc/self/cmdline") > 0 && !strcmp(text, own_name), "cmdline");
	prctl(PR_SET_NAME, "renamed");
	CHECK(has("/proc/self/comm", "renamed\n"), "comm follows PR_SET_NAME");
	snprintf(expected, sizeof expected, "Pid:\t%d\n", getpid());
	CHECK(has("/proc/self/status", expected), "status");
	snprintf(expected, sizeof expected, "%d (", getpid());
	CHECK(has("/proc/self/stat", expected), "stat");
	CHECK(slurp("/proc/self/maps") > 0, "maps has content");
	CHECK(slurp("/proc/self/statm") > 0, "statm");
	CHECK(slurp("/proc/self/auxv") >= 32, "auxv");
	setenv("AFTER_START", "1", 1);
	CHECK(slurp("/proc/self/environ") >= 0, "environ");
	CHECK(has("/proc/self/limits", "Max open files"), "limits");
	CHECK(has("/proc/self/mountinfo", " - "), "mountinfo");
	int fd = open("/dev/null", O_RDONLY);
	snprintf(expected, sizeof expected, "/proc/self/fd/%d", fd);
	CHECK(readlink(expected, link, sizeof link) == 9 && !memcmp(link, "/dev/null", 9), "fd links");
	close(fd);
}

static long kilobytes(const char *name)
{
	char *line = strstr(text, name);
	return line ? atol(line + strlen(name)) : -1;
}

/* In kilobytes, and the same everywhere except for allocations in between. */
static void test_sizes(void)
{
	long pages[3], total = 0, resident, sum = 0;
	CHECK(has("/proc/self/status", "VmSize:") && (total = kilobytes("VmSize:")) > 0 &&
		      (resident = kilobytes("VmRSS:")) > 0 && resident <= total,
	      "status has VmSize and VmRSS");
	CHECK(slurp("/proc/self/statm") > 0 && sscanf(text, "%ld %ld %ld", &pages[0], &pages[1], &pages[2]) == 3 &&
		      labs(4 * pages[0] - total) < 1024 && pages[1] <= pages[0],
	      "statm agrees");
	CHECK(slurp("/proc/self/smaps") > 0, "smaps");
	for (char *at = text; (at = strstr(at, "\nSize:")); at++)
		sum += atol(at + 6);
	CHECK(labs(sum - total) < 1024, "its sizes add up to it");
	CHECK(strstr(text, "Private_Dirty:") && strstr(text, "Pss:"), "with what psutil reads");
	CHECK(has("/proc/self/smaps_rollup", "[rollup]") && kilobytes("Rss:") > 0, "smaps_rollup");
}

/* Debuggers look for the vDSO in maps, and read it. */
static void test_vdso(void)
{
	unsigned long at = getauxval(AT_SYSINFO_EHDR), start, end, last = 0;
	int found = 0, sorted = 1, fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	char magic[4] = "", byte, perms[8];
	slurp("/proc/self/maps");
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) != 3 || start < last || end <= start)
			sorted = 0;
		last = end;
		if (strstr(line, "[vdso]"))
			found += start == at && end >= at + 4096 && !strcmp(perms, "r-xp") ? 1 : 100;
	}
	CHECK(found == 1 && sorted, "maps lists the vDSO once, in order");
	CHECK(pread(fd, magic, 4, (off_t)at) == 4 && !memcmp(magic, "\177ELF", 4), "which can be read through /proc/self/mem");
	CHECK(pwrite(fd, "x", 1, (off_t)at) != 1 || !no_mmu(), "but not written in a VM");
	if (no_mmu())
		CHECK(pread(fd, &byte, 1, (off_t)at - 1) <= 0 && pread(fd, &byte, 1, (off_t)at + 4096) <= 0,
		      "and nothing around it, which is the kernel");
	close(fd);
}

static volatile int listed;

static void *in_thread(void *unused)
{
	wait_for(&listed, 20000);
	return unused;
}

/* Waits until a file contains a text. */
static int comes_to_have(const char *path, const char *expected)
{
	for (int64_t end = now_ns() + 20000000000; !has(path, expected); sleep_ms(1))
		if (now_ns() > end)
			return 0;
	return 1;
}

static void test_others(void)
{
	char path[64];
	pthread_t t;
	int tasks = 0;
	pthread_create(&t, NULL, in_thread, NULL);
	DIR *d = opendir("/proc/self/task");
	for (struct dirent *e; d && (e = readdir(d));)
		tasks += e->d_name[0] != '.';
	if (d)
		closedir(d);
	CHECK(tasks == 2, "task lists both threads");
	listed = 1;
	pthread_join(t, NULL);

	pid_t pid = start_role("pause", NULL);
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	CHECK(comes_to_have(path, ") S "), "a sleeping child is shown as such");
	kill(pid, SIGKILL);
	CHECK(comes_to_have(path, ") Z "), "a dead one as a zombie");
	wait_status(pid);
	CHECK(slurp(path) == -1, "and then it is gone");
}

static void test_system(void)
{
	struct utsname name;
	struct sysinfo info;
	CHECK(uname(&name) == 0 && !strcmp(name.sysname, "Linux") && !strcmp(name.machine, "x86_64"), "uname");
	CHECK(has("/proc/version", name.release), "/proc/version agrees");
	CHECK(sysinfo(&info) == 0 && info.totalram > 0 && info.freeram <= info.totalram, "sysinfo");
	CHECK(has("/proc/meminfo", "MemTotal:") && strstr(text, "MemFree:") && strstr(text, "MemAvailable:"), "meminfo");
	CHECK(has("/proc/cpuinfo", "processor"), "cpuinfo");
	CHECK(strstr(text, "core id") && strstr(text, "vendor_id"), "with what procps asks for");
	CHECK(strstr(text, " sse2 "), "and the processor's features");
	CHECK(has("/proc/stat", "cpu ") && strstr(text, "btime"), "stat");
	CHECK(slurp("/proc/uptime") > 0 && *text >= '0' && *text <= '9' && strchr(text, '.'), "uptime");
	CHECK(slurp("/proc/loadavg") > 0, "loadavg");
	CHECK(has("/proc/mounts", "proc"), "mounts");
	CHECK(has("/proc/filesystems", "ext4") || has("/proc/filesystems", "tmpfs"), "filesystems");
	CHECK(slurp("/proc/sys/kernel/hostname") > 0, "sysctl hostname");
	CHECK(slurp("/proc/sys/kernel/random/boot_id") == 37, "boot id");
	CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1 && sysconf(_SC_PAGESIZE) == 4096, "sysconf");
	cpu_set_t set;
	CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1, "sched_getaffinity");
	CHECK(access("/sys/kernel", F_OK) == 0, "sysfs is mounted");
	if (no_mmu())
		CHECK(has("/proc/net/dev", "lo:"), "the loopback device");
}

static void test_random(void)
{
	unsigned char a[32] = {0}, b[32] = {0};
	CHECK(getrandom(a, sizeof a, 0) == 32 && getrandom(b, sizeof b, GRND_NONBLOCK) == 32 && memcmp(a, b, 32), "getrandom");
	int fd = open("/dev/urandom", O_RDONLY);
	CHECK(read(fd, a, 32) == 32 && memcmp(a, b, 32), "/dev/urandom");
	close(fd);
	fd = open("/dev/random", O_RDONLY | O_NONBLOCK);
	CHECK(read(fd, a, 16) == 16, "/dev/random does not block");
	close(fd);
}

static void test_auxiliary_vector(void)
{
	CHECK(getauxval(AT_PAGESZ) == 4096, "AT_PAGESZ");
	CHECK(getauxval(AT_PHDR) && getauxval(AT_ENTRY), "AT_PHDR and AT_ENTRY");
	CHECK(getauxval(AT_RANDOM) != 0, "AT_RANDOM");
	CHECK(getauxval(AT_EXECFN) && strstr((char *)getauxval(AT_EXECFN), "procfs"), "AT_EXECFN");
	CHECK(getauxval(AT_UID) == getuid() && getauxval(AT_SECURE) == 0, "AT_UID and AT_SECURE");
	CHECK(getauxval(AT_CLKTCK) == (unsigned long)sysconf(_SC_CLK_TCK), "AT_CLKTCK");
	unsigned int a, vectors, c, d;
	CHECK(__get_cpuid_count(0xd, 0, &a, &vectors, &c, &d), "the processor reports the size of its vector state");
	CHECK(getauxval(51 /* AT_MINSIGSTKSZ */) >= vectors + sizeof(ucontext_t), "AT_MINSIGSTKSZ has room for a frame");
	if (no_mmu())
		CHECK(getauxval(AT_SYSINFO) != 0, "AT_SYSINFO gives the kernel's entry");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "pause"))
		for (;;)
			pause();
	test_self(argv[0]);
	test_vdso();
	test_sizes();
	test_others();
	test_system();
	test_random();
	test_auxiliary_vector();
	return tap_done();
}
