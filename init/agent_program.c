// SPDX-License-Identifier: Apache-2.0
// Programs of the agent, with the environment of the VM's own command.
#include "agent_start.h"

#include "exec.h"
#include "user.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A request in memory; every string is NUL-terminated. */
struct request {
	char *user;
	char *path; /* the working directory */
	char **argv;
	struct settings settings; /* the environment and the user */
};

/* Splits the strings, of which the last byte is NUL. Returns false if there are not as many as announced. */
static bool parse(struct request *r, const struct control_start *head, char *strings, size_t length, const struct settings *base)
{
	char *at = strings, *end = strings + length;
	size_t inherited = 0;
	while (base->env[inherited])
		inherited++;
	size_t given = head->variables, words = head->arguments;
	/* HOME, USER and LOGNAME may be added */
	r->argv = calloc(words + 1 + inherited + given + 4, sizeof *r->argv);
	if (!r->argv)
		return false;
	r->settings = *base;
	r->settings.env = r->argv + words + 1;
	memcpy(r->settings.env, base->env, inherited * sizeof *base->env);
	for (size_t i = 0; i < 2 + words + given; i++) {
		if (at == end)
			return false;
		if (i == 0)
			r->user = at;
		else if (i == 1)
			r->path = at;
		else if (i < 2 + words)
			r->argv[i - 2] = at;
		else if (strchr(at, '='))
			settings_variable(r->settings.env, at);
		at += strlen(at) + 1;
	}
	r->settings.user = *r->user ? r->user : NULL;
	return at == end;
}

/* Variables that neither the strings nor the settings contain were made for the user. */
static void release(struct request *r, const struct settings *base, const char *strings, size_t length)
{
	for (char **at = r->argv ? r->settings.env : NULL; at && *at; at++) {
		bool known = *at >= strings && *at < strings + length;
		for (char **each = base->env; *each && !known; each++)
			known = *each == *at;
		if (!known)
			free(*at);
	}
	free(r->argv);
}

/* For a vfork child. Returns the error number. */
static int become(const struct request *r, const struct user *user, const int streams[3], bool terminal, volatile uint32_t *stage)
{
	/* the signals that process 1 handles: a handler would run here, in its memory */
	static const int handled[] = {SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD};
	sigset_t none;
	setsid();
	*stage = CONTROL_STAGE_RESOURCES;
	for (int i = 0; i < 3; i++)
		if (dup2(streams[i], i) < 0)
			return errno;
	if (terminal)
		ioctl(STDIN_FILENO, TIOCSCTTY, 0);
	*stage = CONTROL_STAGE_USER;
	if (user && !user_become(user))
		return errno;
	*stage = CONTROL_STAGE_DIRECTORY;
	if (chdir(*r->path ? r->path : "/") < 0)
		return errno;
	*stage = CONTROL_STAGE_PROGRAM;
	for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
		signal(handled[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return exec_in_path(r->argv[0], r->argv, r->settings.env);
}

static int start(struct request *r, const int streams[3], bool terminal, pid_t *pid, uint32_t *stage)
{
	static volatile int error;
	static volatile uint32_t where;
	struct user user = {0};
	if (r->settings.user && user_find(&r->settings, &user)) {
		*stage = CONTROL_STAGE_USER;
		return ENOENT;
	}
	error = 0;
	where = CONTROL_STAGE_RESOURCES;
	*pid = vfork();
	if (*pid == 0) {
		error = become(r, r->settings.user ? &user : NULL, streams, terminal, &where);
		_exit(127);
	}
	if (*pid < 0)
		error = errno;
	free(user.groups);
	*stage = where;
	return error;
}

int program_start(const struct control_start *head, char *strings, size_t length, const struct settings *base,
		  const int streams[3], pid_t *pid, uint32_t *stage)
{
	struct request r = {.argv = NULL};
	int error = EINVAL;
	*stage = CONTROL_STAGE_RESOURCES;
	if (head->kind == CONTROL_EXEC && head->arguments && parse(&r, head, strings, length, base))
		error = start(&r, streams, head->flags & CONTROL_TERMINAL, pid, stage);
	release(&r, base, strings, length);
	return error;
}

int question_answer(char *strings, size_t length, int *out)
{
	(void)strings;
	(void)length;
	*out = -1;
	return EINVAL;
}
