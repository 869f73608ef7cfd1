// SPDX-License-Identifier: Apache-2.0
#include "hooks.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MAX 86400

static const char *const kinds[] = {"prestart", "createRuntime", "createContainer", "poststart", "poststop", NULL};

void hooks_check(const struct at *config)
{
	struct at hooks, all, at;
	if (!at_member(config, "hooks", json_type_object, &hooks))
		return;
	if (at_member(&hooks, "startContainer", json_type_array, &all) && at_length(&all))
		at_fail(&all, "createContainer hooks run on the host", "hooks cannot run inside a VM");
	for (const char *const *kind = kinds; *kind; kind++) {
		if (!at_member(&hooks, *kind, json_type_array, &all))
			continue;
		for (size_t i = 0; i < at_length(&all); i++) {
			struct at hook = at_element(&all, i, json_type_object);
			struct at path = at_required(&hook, "path", json_type_string);
			if (*at_text(&path) != '/')
				at_fail(&path, NULL, "'%s' is not an absolute path", at_text(&path));
			at_texts(&hook, "args", NULL);
			at_texts(&hook, "env", NULL);
			if (at_member(&hook, "timeout", json_type_int, &at))
				at_integer(&at, 1, TIMEOUT_MAX);
		}
	}
}

static _Noreturn void become_hook(const char *path, const char **args, const char **env, int input)
{
	const char *alone[] = {path, NULL};
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* its children are killed with it if it takes too long */
	setpgid(0, 0);
	if (dup2(input, STDIN_FILENO) >= 0)
		execve(path, (char *const *)(*args ? args : alone), (char *const *)env);
	_exit(127);
}

static long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Writes the state, then waits. Returns false after the time limit; -1: no limit. */
static bool attend(int pidfd, int output, const char *state, long long timeout_ms)
{
	size_t left = strlen(state);
	long long end = now_ms() + timeout_ms;
	fcntl(output, F_SETFL, O_NONBLOCK);
	for (;;) {
		struct pollfd events[] = {{.fd = pidfd, .events = POLLIN}, {.fd = left ? output : -1, .events = POLLOUT}};
		long long rest = timeout_ms < 0 ? -1 : end - now_ms();
		if (timeout_ms >= 0 && rest <= 0)
			break;
		if (poll(events, 2, (int)rest) < 0 && errno != EINTR)
			break;
		if (events[0].revents) {
			close(output);
			return true;
		}
		if (events[1].revents) {
			ssize_t put = write(output, state, left);
			left = put < 0 && errno != EAGAIN ? 0 : left - (size_t)(put > 0 ? put : 0);
			state += put > 0 ? put : 0;
			if (!left)
				close(output);
			output = left ? output : -1;
		}
	}
	if (output >= 0)
		close(output);
	return false;
}

/* Returns why it failed, or NULL. */
static const char *run_hook(const struct at *hook, const char *state)
{
	struct at path = at_required(hook, "path", json_type_string), timeout;
	const char **args = at_texts(hook, "args", NULL), **env = at_texts(hook, "env", NULL);
	bool limited = at_member(hook, "timeout", json_type_int, &timeout);
	int ends[2], status;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return strerror(errno);
	pid_t pid = fork();
	if (pid < 0)
		return strerror(errno);
	if (!pid)
		become_hook(at_text(&path), args, env, ends[0]);
	close(ends[0]);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	bool ended = attend(pidfd, ends[1], state, limited ? at_integer(&timeout, 1, TIMEOUT_MAX) * 1000 : -1);
	if (!ended) {
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL);
	}
	close(pidfd);
	waitpid(pid, &status, 0);
	if (!ended)
		return "it did not end in time";
	if (WIFSIGNALED(status))
		return format_text("signal %d ended it", WTERMSIG(status));
	return WEXITSTATUS(status) ? format_text("its exit status is %d", WEXITSTATUS(status)) : NULL;
}

void hooks_run(struct json_object *hooks, const char *kind, const char *state, bool required)
{
	const struct at top = {.value = hooks, .name = "hooks", .up = NULL};
	struct at all;
	if (!hooks || !at_member(&top, kind, json_type_array, &all))
		return;
	/* A hook that does not read its input is not an error. */
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < at_length(&all); i++) {
		struct at hook = at_element(&all, i, json_type_object);
		struct at path = at_required(&hook, "path", json_type_string);
		const char *reason = run_hook(&hook, state);
		if (!reason)
			continue;
		if (required)
			fail(NULL, "hook %s[%zu] %s: %s", kind, i, at_text(&path), reason);
		warn("hook %s[%zu] %s: %s", kind, i, at_text(&path), reason);
	}
	signal(SIGPIPE, SIG_DFL);
}
