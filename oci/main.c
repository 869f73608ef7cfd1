// SPDX-License-Identifier: Apache-2.0
// nabla-oci: an OCI runtime whose containers are virtual machines. Engines call it once for each step of a container's life
// cycle.
#include "create.h"
#include "describe.h"
#include "diag.h"
#include "exec.h"
#include "lifecycle.h"
#include "manual.h"
#include "options.h"
#include "processes.h"
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
	bool force, quiet, all;
	const char *words[2];
	size_t word_count;
	struct exec_call exec;
};

static bool global_option(struct call *call, char ***at)
{
	const char *ignored;
	if (!strcmp(**at, "--systemd-cgroup"))
		return call->systemd = true;
	/* options of runc and crun; nabla-oci has no more detailed messages, and detects by itself whether it is root */
	if (!strcmp(**at, "--debug") || option_take(at, "rootless", NULL, &ignored) || option_take(at, "log-level", NULL, &ignored))
		return true;
	return option_take(at, "root", NULL, &call->root) || option_take(at, "log", NULL, &call->log) ||
	       option_take(at, "log-format", NULL, &call->log_format) || option_take(at, "cgroup-manager", NULL, &call->manager);
}

static void parse_command(struct call *call, char **at, const char *allowed)
{
	for (; *at; at++) {
		bool option = **at == '-' && (*at)[1];
		bool known = (strchr(allowed, 'c') && (option_take(&at, "bundle", "-b", &call->bundle) ||
						       option_take(&at, "pid-file", NULL, &call->pid_file) ||
						       option_take(&at, "console-socket", NULL, &call->console_socket))) ||
			     (strchr(allowed, 'l') && option_take(&at, "format", "-f", &call->format));
		if (known)
			continue;
		/* Options that ask for what happens anyway: no key ring, no pivot_root. */
		if (strchr(allowed, 'c') && (!strcmp(*at, "--no-new-keyring") || !strcmp(*at, "--no-pivot")))
			continue;
		if (strchr(allowed, 'f') && (!strcmp(*at, "--force") || !strcmp(*at, "-f")))
			call->force = true;
		else if (strchr(allowed, 'a') && (!strcmp(*at, "--all") || !strcmp(*at, "-a")))
			call->all = true;
		else if (strchr(allowed, 'q') && (!strcmp(*at, "--quiet") || !strcmp(*at, "-q")))
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

static void exec(struct call *call)
{
	container_exec(&call->exec);
}

static void start(struct call *call)
{
	container_start(call->words[0]);
}

static void kill_(struct call *call)
{
	container_kill(call->words[0], call->word_count == 2 ? call->words[1] : "TERM", call->all);
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

static bool wants_json(const struct call *call)
{
	const char *format = call->format ? call->format : "table";
	if (strcmp(format, "json") && strcmp(format, "table"))
		fail("json or table", "--format: '%s' is unknown", format);
	return !strcmp(format, "json");
}

static void list(struct call *call)
{
	container_list(wants_json(call), call->quiet);
}

static void ps(struct call *call)
{
	container_ps(call->words[0], wants_json(call));
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

/* options: c of create, f --force, a --all, l --format, q --quiet, x of exec, which has a command after the ID. */
static const struct {
	const char *name, *options;
	size_t words_least, words_most;
	void (*run)(struct call *);
} commands[] = {
	{"create", "c", 1, 1, create}, {"start", "", 1, 1, start}, {"exec", "x", 1, 1, exec}, {"state", "", 1, 1, state},
	{"kill", "a", 1, 2, kill_},    {"delete", "f", 1, 1, delete_}, {"list", "lq", 0, 0, list},
	{"pause", "", 1, 1, pause_}, {"resume", "", 1, 1, resume},
	{"ps", "l", 1, 1, ps}, {"features", "", 0, 0, features}, {"spec", "c", 0, 0, spec},
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
		if (commands[i].run == exec)
			call.word_count = (call.words[0] = exec_parse(&call.exec, at + 1)) ? 1 : 0;
		else
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
	fail("use create, start, exec, state, kill, pause, resume, ps, delete, list, features or spec", "the command '%s' is not supported", *at);
}
