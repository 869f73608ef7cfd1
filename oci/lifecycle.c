// SPDX-License-Identifier: Apache-2.0
#include "lifecycle.h"

#include "cgroup.h"
#include "channel.h"
#include "diag.h"
#include "hooks.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <json_tokener.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define END_MS 10000

static struct json_object *hooks_of(const struct state *s)
{
	struct json_object *hooks = NULL;
	json_object_object_get_ex(s->document, "hooks", &hooks);
	return hooks;
}

/* Waits until the container's process has become nabla-run. */
static void await(const struct state *s, int fifo)
{
	char text[8192];
	size_t length = 0;
	for (;;) {
		struct pollfd events[] = {{.fd = fifo, .events = POLLIN}, {.fd = s->pidfd, .events = POLLIN}};
		if (poll(events, 2, -1) < 0 && errno != EINTR)
			fail(NULL, "cannot wait for container %s: %s", s->id, strerror(errno));
		/* Until the process opens the other end, there is nothing to read and no end. */
		if (events[0].revents) {
			ssize_t got = read(fifo, text + length, sizeof text - 1 - length);
			if (got > 0)
				length += (size_t)got;
			else if (!got)
				break;
			continue;
		}
		if (events[1].revents)
			fail(NULL, "container %s has ended before it was started", s->id);
	}
	text[length] = '\0';
	if (length)
		fail_with_line(text);
}

void container_start(const char *id)
{
	struct state s;
	state_load(id, &s, false);
	if (s.status != CREATED)
		fail(NULL, "container %s is %s; only a created one can be started", id, status_names[s.status]);
	struct json_object *present = NULL;
	if (!json_object_object_get_ex(s.document, "process", &present))
		fail(NULL, "container %s has no process: config.json lacks it", id);
	/* Only one of two calls may open the FIFO: the process continues as soon as one does. */
	if (flock(s.directory, LOCK_EX) < 0)
		fail(NULL, "cannot lock container %s: %s", id, strerror(errno));
	int fifo = openat(s.directory, STATE_FIFO, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fifo < 0 || unlinkat(s.directory, STATE_FIFO, 0) < 0)
		fail(NULL, "container %s has already been started", id);
	await(&s, fifo);
	hooks_run(hooks_of(&s), "poststart", state_text(s.document, RUNNING, false), false);
}

/* A number, or a name with or without SIG. */
static int signal_number(const char *text)
{
	static const struct {
		const char *name;
		int number;
	} names[] = {
		{"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"ILL", SIGILL}, {"TRAP", SIGTRAP}, {"ABRT", SIGABRT},
		{"BUS", SIGBUS}, {"FPE", SIGFPE}, {"KILL", SIGKILL}, {"USR1", SIGUSR1}, {"SEGV", SIGSEGV}, {"USR2", SIGUSR2},
		{"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM}, {"CHLD", SIGCHLD}, {"CONT", SIGCONT}, {"STOP", SIGSTOP},
		{"TSTP", SIGTSTP}, {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU}, {"URG", SIGURG}, {"WINCH", SIGWINCH},
	};
	char *end;
	long number = strtol(text, &end, 10);
	if (*text && !*end && number >= 0 && number <= 64)
		return (int)number;
	const char *name = strncasecmp(text, "SIG", 3) ? text : text + 3;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcasecmp(names[i].name, name))
			return names[i].number;
	fail(NULL, "there is no signal '%s'", text);
}

static void send_signal(const struct state *s, int number)
{
	if (syscall(SYS_pidfd_send_signal, s->pidfd, number, NULL, 0) < 0)
		fail(NULL, "cannot send signal %d to container %s: %s", number, s->id, strerror(errno));
}

/* Sends a signal to processes of the guest. */
static void pass_signal(const struct state *s, int number, bool all)
{
	const char *why, *words = format_text("%s=%d", all ? "killall" : "kill", number);
	size_t length;
	if (channel_ask(s, words, strlen(words) + 1, &length, &why))
		return;
	if (number != SIGTERM && number != SIGINT && number != SIGQUIT)
		fail("send TERM or KILL", "cannot send signal %d to container %s: %s", number, s->id, why);
	/* a power button, which needs no session */
	send_signal(s, SIGTERM);
}

void container_kill(const char *id, const char *name, bool all)
{
	struct state s;
	int number = signal_number(name);
	state_load(id, &s, false);
	if (s.status == PAUSED && number && number != SIGKILL)
		fail("resume it first, or send KILL", "container %s is paused and cannot receive signal %d", id, number);
	if (s.status != CREATED && s.status != RUNNING && s.status != PAUSED)
		/* containerd searches for the words of the hint */
		fail("container not running", "container %s is %s and cannot receive a signal", id, status_names[s.status]);
	if (s.status == RUNNING && number && number != SIGKILL)
		pass_signal(&s, number, all);
	else
		send_signal(&s, number);
}

/* nabla-run stops its VM, then itself; callers see one state. */
static void stop_or_continue(const char *id, enum status from, enum status to, int number)
{
	static const struct timespec step = {.tv_nsec = 1000000};
	struct state s;
	state_load(id, &s, false);
	if (s.status != from)
		fail(NULL, "container %s is %s, not %s", id, status_names[s.status], status_names[from]);
	for (int i = 0; i < END_MS; i++) {
		struct state now;
		/* Repeat the signal: the kernel discards SIGTSTP until nabla-run waits for it. */
		if (i % 10 == 0 && syscall(SYS_pidfd_send_signal, s.pidfd, number, NULL, 0) < 0 && errno != ESRCH)
			fail(NULL, "cannot send signal %d to container %s: %s", number, id, strerror(errno));
		state_load(id, &now, false);
		close(now.directory);
		if (now.pidfd >= 0)
			close(now.pidfd);
		if (now.status == to)
			return;
		if (now.status != from)
			fail(NULL, "container %s is %s by now", id, status_names[now.status]);
		nanosleep(&step, NULL);
	}
	fail(NULL, "container %s did not become %s", id, status_names[to]);
}

void container_pause(const char *id)
{
	stop_or_continue(id, RUNNING, PAUSED, SIGTSTP);
}

void container_resume(const char *id)
{
	stop_or_continue(id, PAUSED, RUNNING, SIGCONT);
}

void container_delete(const char *id, bool force)
{
	struct state s;
	/* Engines use --force to delete containers that they failed to create. */
	if (!state_load(id, &s, force))
		return;
	if (!force && s.status != STOPPED)
		fail("kill it first, or use --force", "container %s is %s and cannot be deleted", id, status_names[s.status]);
	if (s.pidfd >= 0) {
		struct pollfd end = {.fd = s.pidfd, .events = POLLIN};
		send_signal(&s, SIGKILL);
		if (poll(&end, 1, END_MS) != 1)
			fail(NULL, "container %s did not end", id);
	}
	if (s.cgroup)
		cgroup_remove(s.cgroup);
	state_remove(id);
	hooks_run(hooks_of(&s), "poststop", state_text(s.document, STOPPED, false), false);
}

void container_state(const char *id)
{
	struct state s;
	state_load(id, &s, false);
	puts(state_text(s.document, s.status, true));
}

void container_list(bool json, bool quiet)
{
	struct json_object *all = json_object_new_array();
	if (!json && !quiet)
		printf("%-20s %10s %-10s %-22s %s\n", "ID", "PID", "STATUS", "CREATED", "BUNDLE");
	for (char **id = state_list(); *id; id++) {
		struct state s;
		struct json_object *created = NULL;
		/* it may have been deleted by now */
		if (!state_load(*id, &s, true))
			continue;
		json_object_object_get_ex(s.document, "created", &created);
		if (json)
			json_object_array_add(all, json_tokener_parse(state_text(s.document, s.status, false)));
		else if (quiet)
			puts(*id);
		else
			printf("%-20s %10d %-10s %-22s %s\n", *id, s.status == STOPPED ? 0 : s.pid, status_names[s.status],
			       created ? json_object_get_string(created) : "-", s.bundle ? s.bundle : "-");
		close(s.directory);
		if (s.pidfd >= 0)
			close(s.pidfd);
	}
	if (json)
		puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}
