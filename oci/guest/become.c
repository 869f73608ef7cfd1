// SPDX-License-Identifier: Apache-2.0
// The child only makes system calls and changes no memory that the parent needs, since vfork shares the memory.
#include "become.h"

#include "log.h"
#include "protocol.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATUS_NO_START 125
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127
#define CAPABILITY_LAST 63

/* Prepared before vfork. */
static struct command {
	char **arguments, **environment;
	const char *path; /* PATH of the environment */
	const char *cwd;
	uint32_t uid, gid, *groups;
	size_t group_count;
	char **limits;
	uint64_t bounding, effective, permitted, inheritable, ambient;
	bool capabilities, no_privileges, terminal;
	const int *streams; /* NULL: the host's */
	int umask;
	const char *oom;
} command;

static volatile int error;
static volatile uint32_t stage; /* that the error concerns */

static uint64_t mask(const struct words *words, const char *name)
{
	const char *text = words_find(words, name);
	return text ? strtoull(text, NULL, 16) : 0;
}

static uint32_t number(const struct words *words, const char *name)
{
	const char *text = words_find(words, name);
	return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

/* Engines leave HOME to the runtime. */
static void add_home(char **environment)
{
	static char home_of_root[] = "HOME=/root", other[] = "HOME=/";
	char **at = environment;
	for (; *at; at++)
		if (value_of(*at, "HOME"))
			return;
	*at = command.uid ? other : home_of_root;
}

static void release(void)
{
	free(command.arguments);
	free(command.environment);
	free(command.limits);
	free(command.groups);
}

static bool prepare(const struct words *words, const int *streams, bool terminal)
{
	char **groups = words_list(words, "group");
	command = (struct command){
		.arguments = words_list(words, "arg"),
		.environment = words_list(words, "env"),
		.limits = words_list(words, "limit"),
		.cwd = words_find(words, "cwd"),
		.uid = number(words, "uid"),
		.gid = number(words, "gid"),
		.bounding = mask(words, "bounding"),
		.effective = mask(words, "effective"),
		.permitted = mask(words, "permitted"),
		.inheritable = mask(words, "inheritable"),
		.ambient = mask(words, "ambient"),
		.capabilities = words_find(words, "bounding"),
		.no_privileges = words_find(words, "privileges"),
		.umask = words_find(words, "umask") ? (int)number(words, "umask") : 022,
		.oom = words_find(words, "oom"),
		.terminal = terminal,
		.streams = streams,
		.path = "",
	};
	bool complete = groups && command.arguments && command.environment && command.limits && command.arguments[0] && command.cwd;
	while (complete && groups[command.group_count])
		command.group_count++;
	command.groups = complete ? calloc(command.group_count + 1, sizeof *command.groups) : NULL;
	for (size_t i = 0; command.groups && i < command.group_count; i++)
		command.groups[i] = (uint32_t)strtoul(groups[i], NULL, 10);
	free(groups);
	if (!command.groups)
		return false;
	add_home(command.environment);
	for (char **at = command.environment; *at; at++)
		if (value_of(*at, "PATH"))
			command.path = value_of(*at, "PATH");
	return true;
}

/* RESOURCE:SOFT:HARD */
static bool set_limits(void)
{
	for (char **at = command.limits; *at; at++) {
		char *end;
		unsigned long resource = strtoul(*at, &end, 10);
		uint64_t values[2];
		values[0] = strtoull(end + 1, &end, 10);
		values[1] = strtoull(end + 1, NULL, 10);
		/* prlimit64 uses the kernel's own value for no limit */
		if (syscall(SYS_prlimit64, 0, resource, values, NULL) < 0)
			return false;
	}
	return true;
}

static bool set_oom(void)
{
	int fd = command.oom ? open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
	if (!command.oom)
		return true;
	return fd >= 0 && write(fd, command.oom, strlen(command.oom)) > 0 && !close(fd);
}

static bool drop_bounding(void)
{
	for (int i = 0; command.capabilities && i <= CAPABILITY_LAST; i++)
		if (!(command.bounding >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 && errno != EINVAL)
			return false;
	return true;
}

/* Only the capabilities that this kernel knows. */
static bool set_capabilities(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	if (!command.capabilities)
		return true;
	uint64_t permitted = command.permitted & command.bounding, inheritable = command.inheritable;
	uint64_t effective = command.effective & permitted;
	for (int i = 0; i < 2; i++)
		data[i] = (struct __user_cap_data_struct){(uint32_t)(effective >> 32 * i), (uint32_t)(permitted >> 32 * i),
							  (uint32_t)(inheritable >> 32 * i)};
	if (syscall(SYS_capset, &header, data) < 0)
		return false;
	for (int i = 0; i <= CAPABILITY_LAST; i++)
		if (command.ambient >> i & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return false;
	return true;
}

/* With KEEPCAPS, a user other than root still has them for capset(). */
static bool become_user(void)
{
	for (int fd = 0; fd < 3; fd++)
		fchown(fd, command.uid, (gid_t)-1);
	return !prctl(PR_SET_KEEPCAPS, command.capabilities && command.uid, 0, 0, 0) &&
	       !syscall(SYS_setgroups, command.group_count, command.groups) &&
	       !syscall(SYS_setresgid, command.gid, command.gid, command.gid) &&
	       !syscall(SYS_setresuid, command.uid, command.uid, command.uid);
}

/* Returns only on failure, with the error number. */
static int exec_in_path(void)
{
	char path[PATH_MAX];
	const char *file = command.arguments[0];
	size_t file_length = strlen(file);
	int reason = ENOENT;
	if (strchr(file, '/')) {
		execve(file, command.arguments, command.environment);
		return errno;
	}
	for (const char *folder = command.path; *folder; folder += *folder == ':') {
		size_t length = strcspn(folder, ":");
		if (length + file_length + 2 <= sizeof path) {
			memcpy(path, folder, length);
			path[length] = '/';
			/* an empty entry means the working directory */
			memcpy(path + length + !!length, file, file_length + 1);
			execve(path, command.arguments, command.environment);
			if (errno == EACCES)
				reason = EACCES;
			else if (errno != ENOENT && errno != ENOTDIR)
				return errno;
		}
		folder += length;
	}
	return reason;
}

/* runc creates a missing working directory, and engines rely on it. */
static bool enter(const char *path)
{
	if (!chdir(path))
		return true;
	return errno == ENOENT && !mkdir(path, 0755) && !chdir(path);
}

static bool take_streams(void)
{
	for (int i = 0; command.streams && i < 3; i++)
		if (dup2(command.streams[i], i) < 0)
			return false;
	if (command.terminal)
		ioctl(STDIN_FILENO, TIOCSCTTY, command.streams ? 0 : 1);
	return command.streams || command.terminal || open_host_streams();
}

static int become(void)
{
	/* the signals that process 1 handles: a handler would run here, in its memory */
	static const int handled[] = {SIGTERM, SIGCHLD};
	sigset_t none;
	stage = GUEST_STAGE_STREAMS;
	if (!take_streams())
		return errno;
	stage = GUEST_STAGE_LIMITS;
	if (!set_limits())
		return errno;
	stage = GUEST_STAGE_OOM;
	if (!set_oom())
		return errno;
	stage = GUEST_STAGE_CWD;
	if (!enter(command.cwd))
		return errno;
	stage = GUEST_STAGE_CAPABILITIES;
	if (!drop_bounding())
		return errno;
	stage = GUEST_STAGE_USER;
	if (!become_user())
		return errno;
	stage = GUEST_STAGE_CAPABILITIES;
	if (!set_capabilities())
		return errno;
	stage = GUEST_STAGE_PRIVILEGES;
	if (command.no_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return errno;
	stage = GUEST_STAGE_PROGRAM;
	umask((mode_t)command.umask);
	for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
		signal(handled[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return exec_in_path();
}

int command_try(const struct words *words, const int streams[3], bool terminal, pid_t *pid, uint32_t *at)
{
	stage = GUEST_STAGE_WORDS;
	error = 0;
	*pid = -1;
	if (!prepare(words, streams, terminal))
		error = EINVAL;
	else
		*pid = vfork();
	if (*pid == 0) {
		setsid();
		error = become();
		_exit(STATUS_NO_START);
	}
	if (*pid < 0 && !error)
		error = errno;
	release();
	*at = stage;
	return error;
}

pid_t command_start(const struct words *words, bool terminal)
{
	static const char *const names[] = GUEST_STAGE_NAMES;
	uint32_t at;
	pid_t pid;
	int reason = command_try(words, NULL, terminal, &pid, &at);
	if (!reason)
		return pid;
	bool program = at == GUEST_STAGE_PROGRAM;
	const char *first = words_find(words, "arg");
	log_error(program ? first : names[at - GUEST_STAGE_PROGRAM], program && reason == ENOENT ? "not found" : strerror(reason));
	if (!program)
		return -STATUS_NO_START;
	return reason == ENOENT || reason == ENOTDIR ? -STATUS_NOT_FOUND : -STATUS_NOT_EXECUTABLE;
}
