// SPDX-License-Identifier: Apache-2.0
// nabla-oci: an OCI runtime whose containers are virtual machines. Engines call it once for each step of a container's life
// cycle.
#include "create.h"
#include "describe.h"
#include "diag.h"
#include "lifecycle.h"
#include "manual.h"
#include "state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct call {
	/* global */
	const char *root, *log, *log_format, *manager;
	bool systemd;
	/* of a command */
	const char *bundle, *pid_file, *console_socket, *format;
	bool force, quiet;
	const char *words[2];
	size_t word_count;
};

/* Returns the value of option NAME at *at, or NULL if that is another word. Advances over a value in the next word. */
static const char *value_of(char ***at, const char *name, const char *letter)
{
	char *word = **at;
	size_t length = strlen(name);
	bool whole = (!strncmp(word, "--", 2) && !strcmp(word + 2, name)) || (letter && !strcmp(word, letter));
	if (!whole)
		return !strncmp(word, "--", 2) && !strncmp(word + 2, name, length) && word[2 + length] == '=' ? word + 3 + length
													    : NULL;
	if (!(*at)[1])
		fail("nabla-oci --help", "--%s needs a value", name);
	return *++*at;
}

static bool take(char ***at, const char *name, const char *letter, const char **value)
{
	const char *found = value_of(at, name, letter);
	if (found)
		*value = found;
	return found;
}

static bool global_option(struct call *call, char ***at)
{
	const char *ignored;
	if (!strcmp(**at, "--systemd-cgroup"))
		return call->systemd = true;
	/* options of runc and crun; nabla-oci has no more detailed messages, and detects by itself whether it is root */
	if (!strcmp(**at, "--debug") || take(at, "rootless", NULL, &ignored) || take(at, "log-level", NULL, &ignored))
		return true;
	return take(at, "root", NULL, &call->root) || take(at, "log", NULL, &call->log) ||
	       take(at, "log-format", NULL, &call->log_format) || take(at, "cgroup-manager", NULL, &call->manager);
}

static void parse_command(struct call *call, char **at, const char *allowed)
{
	for (; *at; at++) {
		bool option = **at == '-' && (*at)[1];
		bool known = (strchr(allowed, 'c') && (take(&at, "bundle", "-b", &call->bundle) ||
						       take(&at, "pid-file", NULL, &call->pid_file) ||
						       take(&at, "console-socket", NULL, &call->console_socket))) ||
			     (strchr(allowed, 'l') && take(&at, "format", "-f", &call->format));
		if (known)
			continue;
		/* Options that request what happens anyway: no key ring, no pivot_root, no inherited descriptors; all get the
		 * signal. */
		if ((strchr(allowed, 'c') && (!strcmp(*at, "--no-new-keyring") || !strcmp(*at, "--no-pivot"))) ||
		    (strchr(allowed, 'a') && (!strcmp(*at, "--all") || !strcmp(*at, "-a"))))
			continue;
		if (strchr(allowed, 'f') && (!strcmp(*at, "--force") || !strcmp(*at, "-f")))
			call->force = true;
		else if (strchr(allowed, 'l') && (!strcmp(*at, "--quiet") || !strcmp(*at, "-q")))
			call->quiet = true;
		else if (option)
			fail("nabla-oci --help", "unknown option '%s'", *at);
		else if (call->word_count == 2)
			fail("nabla-oci --help", "unexpected argument '%s'", *at);
		else
			call->words[call->word_count++] = *at;
	}
}

static enum cgroup_manager manager_of(const struct call *call)
{
	const char *name = call->manager ? call->manager : call->systemd ? "systemd" : "cgroupfs";
	if (!strcmp(name, "cgroupfs"))
		return CGROUP_FS;
	if (!strcmp(name, "systemd"))
		return CGROUP_SYSTEMD;
	if (strcmp(name, "disabled"))
		fail("cgroupfs, systemd or disabled", "--cgroup-manager: '%s' is unknown", name);
	return CGROUP_DISABLED;
}

static void create(struct call *call)
{
	container_create(&(struct creation){call->words[0], call->bundle ? call->bundle : ".", call->pid_file,
					    call->console_socket, manager_of(call)});
}

static void start(struct call *call)
{
	container_start(call->words[0]);
}

static void kill_(struct call *call)
{
	container_kill(call->words[0], call->word_count == 2 ? call->words[1] : "TERM");
}

static void pause_(struct call *call)
{
	container_pause(call->words[0]);
}

static void resume(struct call *call)
{
	container_resume(call->words[0]);
}

static void delete_(struct call *call)
{
	container_delete(call->words[0], call->force);
}

static void state(struct call *call)
{
	container_state(call->words[0]);
}

static void list(struct call *call)
{
	const char *format = call->format ? call->format : "table";
	if (strcmp(format, "json") && strcmp(format, "table"))
		fail("json or table", "--format: '%s' is unknown", format);
	container_list(!strcmp(format, "json"), call->quiet);
}

static void features(struct call *call)
{
	(void)call;
	describe_features();
}

static void spec(struct call *call)
{
	if (call->bundle && chdir(call->bundle) < 0)
		fail(NULL, "--bundle: cannot enter %s", call->bundle);
	describe_spec();
}

/* options: c of create, f --force, a --all, l of list. */
static const struct {
	const char *name, *options;
	size_t words_least, words_most;
	void (*run)(struct call *);
} commands[] = {
	{"create", "c", 1, 1, create}, {"start", "", 1, 1, start},   {"state", "", 1, 1, state},
	{"kill", "a", 1, 2, kill_},    {"delete", "f", 1, 1, delete_}, {"list", "l", 0, 0, list},
	{"pause", "", 1, 1, pause_}, {"resume", "", 1, 1, resume},
	{"features", "", 0, 0, features}, {"spec", "c", 0, 0, spec},
};

/* The runtime's own standard streams may be closed; files must not take their place. */
static void open_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR);
}

static void information(const char *word)
{
	if (!strcmp(word, "--version") || !strcmp(word, "-v"))
		describe_version();
	else if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help"))
		manual_help();
	else if (!strcmp(word, "--manual"))
		manual_print();
	else if (!strcmp(word, "--rules"))
		describe_rules();
	else
		return;
	exit(0);
}

int main(int argc, char **argv)
{
	struct call call = {0};
	char **at = argv + (argc > 0);
	open_standard_descriptors();
	/* The modes of created directories must not depend on the engine's umask. */
	umask(022);
	for (; *at && **at == '-'; at++) {
		information(*at);
		if (!global_option(&call, &at))
			fail("nabla-oci --help", "unknown option '%s'", *at);
	}
	if (call.log_format && strcmp(call.log_format, "json") && strcmp(call.log_format, "text"))
		fail("json or text", "--log-format: '%s' is unknown", call.log_format);
	log_open(call.log, call.log_format && !strcmp(call.log_format, "json"));
	if (!*at)
		fail("nabla-oci --help", "a command is missing");
	information(*at);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(commands[i].name, *at))
			continue;
		parse_command(&call, at + 1, commands[i].options);
		if (call.word_count < commands[i].words_least)
			fail("nabla-oci --help", "%s: the container ID is missing", *at);
		if (call.word_count > commands[i].words_most)
			fail("nabla-oci --help", "%s: unexpected argument '%s'", *at, call.words[call.word_count - 1]);
		if (commands[i].run != features && commands[i].run != spec)
			state_open_root(call.root, call.words[0]);
		commands[i].run(&call);
		return 0;
	}
	fail("use create, start, state, kill, pause, resume, delete, list, features or spec", "the command '%s' is not supported", *at);
}
