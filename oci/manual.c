// SPDX-License-Identifier: Apache-2.0
// The texts of --help and --manual, from one table.
#include "manual.h"

#include <stdio.h>

static const struct {
	const char *usage, *text;
} options[] = {
	{"--root DIR", "directory for the state of containers; default: /run/nabla-oci, and $XDG_RUNTIME_DIR/nabla-oci for ordinary users"},
	{"--log FILE", "append messages to FILE, besides standard error"},
	{"--log-format text|json", "format of that file; default: text"},
	{"--cgroup-manager cgroupfs|systemd|disabled", "how cgroups are created; systemd is refused, disabled: not at all; default: cgroupfs"},
	{"--systemd-cgroup", "the same as --cgroup-manager systemd"},
	{"--debug, --log-level LEVEL, --rootless VALUE", "options of other runtimes, without effect"},
	{"--version, --help, --manual, --rules", "print the version, the options, this page, or the refused and ignored properties"},
}, commands[] = {
	{"create [--bundle DIR] [--pid-file FILE] [--console-socket SOCKET] ID", "check the bundle and prepare a container, which waits for start"},
	{"start ID", "start the VM of a created container"},
	{"exec [OPTION…] ID COMMAND…", "run a program in a running container, as runc does: --process FILE or --cwd, --env, --user, --additional-gids, --cap, --no-new-privs, --tty; --detach, --pid-file, --console-socket"},
	{"state ID", "print the state as JSON"},
	{"kill [--all] ID [SIGNAL]", "send a signal, by default TERM, to the command; with --all, to every process of the container; KILL ends the VM"},
	{"pause ID", "stop the VM of a running container, whose status becomes paused"},
	{"resume ID", "continue a paused container"},
	{"ps [--format table|json] ID", "print the processes in the guest; json: the IDs of the container's processes on the host"},
	{"delete [--force] ID", "remove a stopped container; with --force, end it first"},
	{"list [--format table|json] [--quiet]", "print all containers"},
	{"features", "print the supported features as JSON"},
	{"spec [--bundle DIR]", "write an example config.json"},
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

void manual_help(void)
{
	puts("usage: nabla-oci [OPTION...] COMMAND [ARG...]\n\ncommands:");
	for (size_t i = 0; i < COUNT(commands); i++)
		printf("  %s\n      %s\n", commands[i].usage, commands[i].text);
	puts("\noptions:");
	for (size_t i = 0; i < COUNT(options); i++)
		printf("  %s\n      %s\n", options[i].usage, options[i].text);
}

void manual_print(void)
{
	puts("| command | |\n|---|---|");
	for (size_t i = 0; i < COUNT(commands); i++)
		printf("| `%s` | %s |\n", commands[i].usage, commands[i].text);
	puts("\n| option | |\n|---|---|");
	for (size_t i = 0; i < COUNT(options); i++)
		printf("| `%s` | %s |\n", options[i].usage, options[i].text);
}
