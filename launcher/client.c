// SPDX-License-Identifier: Apache-2.0
// nabla: controls running VMs that were started with nabla-run --name, through the broker of each.
#include "client.h"

#include "diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>

#ifndef NABLA_VERSION
#define NABLA_VERSION "unknown"
#endif

static const struct command {
	const char *name;
	const char *words;
	const char *help;
	client_command *run;
} commands[] = {
	{"ps", "[--json]", "list the running VMs that have a name", client_ps},
	{"exec", "[-i] [-t] [--env NAME=VALUE] [--workdir DIR] [--user USER] NAME -- COMMAND…",
	 "run a command in a VM; -i: with standard input, -t: on a terminal", client_exec},
	{"cp", "[-r] FILE NAME:PATH | [-r] NAME:PATH FILE", "copy a file into a VM or out of it; FILE may be -, and with -r a directory", client_cp},
	{"logs", "NAME", "print the last 256 KB that a VM wrote to its console", client_logs},
	{"stop", "NAME…", "shut VMs down, as by a power button, and wait until they have ended", client_stop},
	{"kill", "NAME…", "end VMs at once; data that they have not written to their disks is lost", client_kill},
	{"pause", "NAME…", "suspend VMs", client_pause},
	{"resume", "NAME…", "continue VMs that were paused", client_resume},
	{"stats", "NAME…", "print time and memory that VMs use, a line of JSON for each", client_stats},
	{"port", "NAME…", "list the ports that --publish forwards", client_port},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static void print_help(void)
{
	puts("usage: nabla COMMAND …\n"
	     "\n"
	     "Controls VMs that this user has started with nabla-run --name NAME.\n");
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  nabla %s %s\n      %s\n", commands[i].name, commands[i].words, commands[i].help);
	puts("\nExit status: that of COMMAND for exec; 0; 2 for wrong arguments; 125 for any other failure.");
}

int main(int argc, char **argv)
{
	diag_as("nabla");
	signal(SIGPIPE, SIG_IGN);
	const char *name = argc > 1 ? argv[1] : "--help";
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		print_help();
		return argc > 1 ? 0 : EXIT_BAD_INPUT;
	}
	if (!strcmp(name, "--version")) {
		puts("nabla " NABLA_VERSION);
		return 0;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(commands[i].name, name))
			continue;
		if (argv[2] && !strcmp(argv[2], "--help")) {
			printf("usage: nabla %s %s\n\n%s\n", name, commands[i].words, commands[i].help);
			return 0;
		}
		int status = commands[i].run(argv + 2);
		if (fflush(stdout))
			fail(NULL, "cannot write the output");
		return status;
	}
	fail_with(EXIT_BAD_INPUT, "see nabla --help", "unknown command %s", name);
}
