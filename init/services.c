// SPDX-License-Identifier: Apache-2.0
#include "services.h"

#include "command.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVICES "/etc/nabla/services/"
#define START "/etc/nabla/start"
#define LOGS "/var/log/"

struct service {
	const char *name;
	pid_t pid; /* 0: not running */
};

static struct service *services;
static size_t count;
static int first_failure;
static bool stopping;

static void add(const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(services[i].name, name))
			return;
	struct service *more = realloc(services, (count + 1) * sizeof *services);
	if (!more) {
		log_error(name, strerror(ENOMEM));
		return;
	}
	services = more;
	services[count++] = (struct service){.name = name};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct service *)a)->name, ((const struct service *)b)->name);
}

/* Adds the names in START, which most images lack, in an order that does not depend on the file system. */
static void add_default_services(void)
{
	const struct dirent *entry;
	DIR *folder = opendir(START);
	if (!folder)
		return;
	while ((entry = readdir(folder))) {
		char *name = *entry->d_name == '.' ? NULL : strdup(entry->d_name);
		if (name)
			add(name);
	}
	closedir(folder);
	if (count > 1)
		qsort(services, count, sizeof *services, by_name);
}

static void report_failure(const char *name, const char *reason, int status)
{
	char what[sizeof "service " + NAME_MAX] = "service ";
	strncat(what, name, NAME_MAX);
	log_error(what, reason);
	if (!first_failure)
		first_failure = status;
}

/* Standard streams of a service: /dev/null as input, and a log file that keeps the output of earlier boots. */
static bool open_streams(const char *log)
{
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644);
	return in >= 0 && out >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
	       dup2(out, STDERR_FILENO) >= 0;
}

static void start(struct service *service, char **env)
{
	static volatile int error;
	static char path[sizeof SERVICES + NAME_MAX], log[sizeof LOGS ".log" + NAME_MAX];
	static char *words[] = {path, NULL};
	if (strlen(service->name) > NAME_MAX - 4 || strchr(service->name, '/')) {
		report_failure(service->name, "not a service name", STATUS_NO_START);
		return;
	}
	strcat(strcpy(path, SERVICES), service->name);
	strcat(strcat(strcpy(log, LOGS), service->name), ".log");
	error = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		sigset_t none;
		setsid();
		if (open_streams(log) && !chdir("/")) {
			sigemptyset(&none);
			sigprocmask(SIG_SETMASK, &none, NULL);
			execve(path, words, env);
		}
		error = errno;
		_exit(STATUS_NO_START);
	}
	if (pid < 0)
		error = errno;
	if (error)
		report_failure(service->name, error == ENOENT ? "no such file in " SERVICES : strerror(error),
		     error == ENOENT ? STATUS_NOT_FOUND : STATUS_NO_START);
	else
		service->pid = pid;
}

void services_find_default(void)
{
	add_default_services();
}

size_t services_find(const struct settings *s)
{
	for (char **name = s->services; *name; name++)
		add(*name);
	return count;
}

size_t services_start(const struct settings *s)
{
	for (size_t i = 0; i < count; i++)
		start(&services[i], s->env);
	return count;
}

bool services_ended(pid_t pid, int raw)
{
	for (size_t i = 0; i < count; i++) {
		if (services[i].pid != pid)
			continue;
		services[i].pid = 0;
		int status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
		if (!stopping && status)
			report_failure(services[i].name, "failed; its log is in " LOGS, status);
		return true;
	}
	return false;
}

bool services_stop(void)
{
	stopping = true;
	for (size_t i = 0; i < count; i++)
		if (services[i].pid)
			kill(services[i].pid, SIGTERM);
	return services_running();
}

bool services_running(void)
{
	for (size_t i = 0; i < count; i++)
		if (services[i].pid)
			return true;
	return false;
}

int services_status(void)
{
	return first_failure;
}
