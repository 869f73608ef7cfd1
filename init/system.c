// SPDX-License-Identifier: Apache-2.0
#include "system.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static void mount_at(const char *type, const char *where, unsigned long flags, const char *data)
{
	/* EBUSY: already mounted by the kernel (devtmpfs). ENOENT, ENODEV: missing in this image or kernel. */
	if (!mount(type, where, type, flags, data) || errno == EBUSY || errno == ENOENT || errno == ENODEV)
		return;
	log_error(where, strerror(errno));
}

void mount_proc(void)
{
	mount_at("proc", "/proc", SAFE, NULL);
}

void mount_rest(void)
{
	/* Access times would make every read file dirty, and keep it in memory until it is written. */
	mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_NOATIME, NULL);
	mount_at("sysfs", "/sys", SAFE, NULL);
	mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=755");
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 01777);
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
	/* Together less than the memory, so that full folders leave room for programs. */
	mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777,size=25%");
	mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755,size=10%");
	mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777,size=50%");
	/* Shells and scripts expect these links, which udev creates on other systems. */
	if (!symlink("/proc/self/fd", "/dev/fd")) {
		symlink("fd/0", "/dev/stdin");
		symlink("fd/1", "/dev/stdout");
		symlink("fd/2", "/dev/stderr");
	}
}

void open_console(void)
{
	/* The console that the kernel opened is in a hidden file system, where ttyname() does not find it. */
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		if (i != fd)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

void set_hostname(const char *name)
{
	static char current[HOST_NAME_MAX + 1];
	if (!name || !strcmp(name, current))
		return;
	if (sethostname(name, strlen(name)) < 0)
		log_error("hostname", strerror(errno));
	else
		strncpy(current, name, HOST_NAME_MAX);
}

void stop_tracing(pid_t pid, int number)
{
	siginfo_t info;
	/* The kernel sends the SIGTRAP after an exec to the tracer, not to the program. */
	if (number == SIGTRAP && !ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) && info.si_code == SI_USER)
		number = 0;
	ptrace(PTRACE_DETACH, pid, NULL, (void *)(long)number);
}

static int exit_file = -1;

void prepare_power_off(void)
{
	exit_file = open("/proc/exitcode", O_WRONLY | O_CLOEXEC);
}

static void write_exit_status(int status)
{
	/* The kernel parses the number up to the newline. */
	char text[] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10), '\n'};
	int skip = status < 10 ? 2 : status < 100 ? 1 : 0; /* a leading 0 would mean octal */
	int fd = exit_file >= 0 ? exit_file : open("/proc/exitcode", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text + skip, sizeof text - (size_t)skip) < 0)
		log_error("/proc/exitcode", strerror(errno));
}

void power_off(int status, bool discard)
{
	struct statvfs root;
	if (!discard) {
		/* also for other disks and shared directories, which may be writable even if the root is not */
		sync();
		if (statvfs("/", &root) < 0 || !(root.f_flag & ST_RDONLY))
			mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
	write_exit_status(status);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
