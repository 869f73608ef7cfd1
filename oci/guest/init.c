// SPDX-License-Identifier: Apache-2.0
// Process 1 of a container's guest: makes the bundle's mounts, runs the command, and powers off with its exit status.
// Code that containers share with other guests is in nabla-init: settings, console, power-off.
#include "agent.h"
#include "become.h"
#include "log.h"
#include "network.h"
#include "program.h"
#include "protocol.h"
#include "settings.h"
#include "stream.h"
#include "system.h"
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define STATUS_NO_START 125

static volatile sig_atomic_t stop_requested;

static _Noreturn void give_up(const char *what, int error)
{
	log_error(what, error ? strerror(error) : NULL);
	power_off(STATUS_NO_START, false);
}

static void mount_at(const char *type, const char *where, unsigned long flags, const char *data, bool optional)
{
	/* EBUSY: the kernel has mounted devtmpfs */
	if (mount(type, where, type, flags, data) && errno != EBUSY && !(optional && errno == ENODEV))
		give_up(where, errno);
}

static void mount_own(void)
{
	mount_at("sysfs", "/sys", SAFE, NULL, false);
	mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=755", false);
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 01777);
	mkdir("/dev/mqueue", 01777);
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", false);
	mount_at("tmpfs", "/dev/shm", SAFE, "mode=1777,size=25%", false);
	mount_at("mqueue", "/dev/mqueue", SAFE, NULL, true);
	if (!symlink("/proc/self/fd", "/dev/fd")) {
		symlink("fd/0", "/dev/stdin");
		symlink("fd/1", "/dev/stdout");
		symlink("fd/2", "/dev/stderr");
	}
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		give_up(path, errno);
	close(fd);
}

/* FLAGS:OPTIONS:PATH */
static void mount_tmpfs(char *value)
{
	char *flags = strsep(&value, ":"), *data = strsep(&value, ":");
	if (!value)
		give_up("tmpfs", EINVAL);
	mount_at("tmpfs", value, strtoul(flags, NULL, 10), *data ? data : "mode=1777", false);
}

/* The file server executes nothing, so the guest's kernel has to enforce noexec. */
static void forbid_execution(const char *path)
{
	if (mount(path, path, NULL, MS_BIND, NULL) || mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC, NULL))
		give_up(path, errno);
}

static void set_kernel_parameter(char *value)
{
	char path[512] = "/proc/sys/";
	char *equals = strchr(value, '=');
	if (!equals || (size_t)(equals - value) >= sizeof path - strlen(path))
		give_up(value, EINVAL);
	strncat(path, value, (size_t)(equals - value));
	write_text(path, equals + 1);
}

/* /proc/loadavg shows the number of all threads after the slash; kernel threads do not count. */
static void limit_tasks(const char *value)
{
	char text[128] = "";
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	const char *slash = got > 0 ? strchr(text, '/') : NULL;
	if (!slash)
		give_up("/proc/loadavg", errno);
	close(fd);
	unsigned long long most = strtoull(slash + 1, NULL, 10) + strtoull(value, NULL, 10);
	/* Process 1 does not belong to the container, and the kernel accepts no number below 20. */
	number_text(text, most < 20 ? 20 : most > 1000000 ? 1000000 : most);
	write_text("/proc/sys/kernel/threads-max", text);
}

static void configure(struct words *words)
{
	for (char *word = words->text; word < words->text + words->length; word += strlen(word) + 1) {
		char *value;
		if ((value = value_of(word, "tmpfs")))
			mount_tmpfs(value);
		else if ((value = value_of(word, "noexec")))
			forbid_execution(value);
		else if ((value = value_of(word, "sysctl")))
			set_kernel_parameter(value);
		else if ((value = value_of(word, "domainname")) && setdomainname(value, strlen(value)))
			give_up("domainname", errno);
	}
}

static void on_child(int number)
{
	(void)number; /* only interrupts sigsuspend() */
}

static void on_stop(int number)
{
	(void)number;
	stop_requested = 1;
}

static void prepare_signals(sigset_t *waiting)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_child}, NULL);
	sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_stop}, NULL);
	*waiting = all;
	sigdelset(waiting, SIGCHLD);
	sigdelset(waiting, SIGTERM);
}

/* Reaps dead children, including adopted orphans, until the command ends. Returns its exit status. */
static int attend(pid_t command, const sigset_t *waiting)
{
	for (;;) {
		int raw;
		pid_t pid;
		while ((pid = waitpid(-1, &raw, WNOHANG)) > 0) {
			if (WIFSTOPPED(raw))
				stop_tracing(pid, WSTOPSIG(raw));
			else if (pid == command)
				return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
			else
				agent_ended(pid, raw);
		}
		if (stop_requested) {
			/* Like the process of any container, the command decides itself when to end; nabla-run waits for some
			 * seconds. */
			stop_requested = 0;
			kill(command, SIGTERM);
			continue;
		}
		agent_wait(waiting);
	}
}

/* The other processes of a container do not outlive its first one; who waits for one of them learns of its end. */
static void stop_remaining(void)
{
	int raw;
	pid_t pid;
	kill(-1, SIGKILL);
	while ((pid = waitpid(-1, &raw, 0)) > 0 || errno == EINTR)
		if (pid > 0)
			agent_ended(pid, raw);
	agent_work();
}

int main(int argc, char **argv)
{
	struct settings settings;
	struct words words;
	sigset_t waiting;
	(void)argc;
	if (getpid() != 1) {
		log_error("must be process 1", NULL);
		return 1;
	}
	int directory = open(GUEST_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = words_read(&words, directory, GUEST_CONFIG);
	close(directory);
	mount_proc();
	settings_read(&settings, argv);
	mount_own();
	open_console();
	if (error)
		give_up(GUEST_CONFIG, error);
	start_loopback();
	if (settings.terminal)
		console_mode();
	set_hostname(settings.hostname);
	configure(&words);
	prepare_signals(&waiting);
	const char *tasks = words_find(&words, "tasks");
	if (tasks)
		limit_tasks(tasks);
	if (settings.control)
		agent_open(&settings);
	pid_t pid = command_start(&words, settings.terminal);
	program_first(pid);
	int status = pid < 0 ? -pid : attend(pid, &waiting);
	stop_remaining();
	power_off(status, false);
}
