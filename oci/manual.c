// SPDX-License-Identifier: Apache-2.0
// The texts of --help and --manual, from one table.
#include "manual.h"

#include <stdio.h>

static const struct {
	const char *usage, *text;
} options[] = {
	{"--root DIR", "directory of the state of containers; default: /run/nabla-oci, and $XDG_RUNTIME_DIR/nabla-oci for ordinary users"},
	{"--log FILE", "append messages to FILE, besides standard error"},
	{"--log-format text|json", "format of that file; default: text"},
	{"--cgroup-manager cgroupfs|systemd|disabled", "who makes cgroups; systemd is refused, disabled: nobody; default: cgroupfs"},
	{"--systemd-cgroup", "the same as --cgroup-manager systemd"},
	{"--debug, --log-level LEVEL, --rootless VALUE", "options of other runtimes, without effect"},
	{"--version, --help, --manual, --rules", "print the version, the options, this page, or what is refused and what has no effect"},
}, commands[] = {
	{"create [--bundle DIR] [--pid-file FILE] [--console-socket SOCKET] ID", "check the bundle and prepare a container, which waits"},
	{"start ID", "start the VM of a created container"},
	{"state ID", "print the state as JSON"},
	{"kill [--all] ID [SIGNAL]", "send a signal, by default TERM: TERM, INT or QUIT to the command, then the VM powers off; KILL ends the VM"},
	{"pause ID", "stop the VM of a running container, whose status becomes paused"},
	{"resume ID", "continue a paused container"},
	{"delete [--force] ID", "remove a stopped container; with --force, end it first"},
	{"list [--format table|json] [--quiet]", "print all containers"},
	{"features", "print what is supported as JSON"},
	{"spec [--bundle DIR]", "write the config.json of an example"},
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
