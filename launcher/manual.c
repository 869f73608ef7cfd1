// SPDX-License-Identifier: Apache-2.0
// What --help and --manual print.
#include "table.h"

#include <stdio.h>

#define HELP_COLUMN 34

static bool is_group(const struct row *row)
{
	return !row->parse;
}

static void write_title(char *title, size_t size, const struct row *row)
{
	snprintf(title, size, "--%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
}

static void print_sentence(const char *text)
{
	printf("%c%s.", 'a' <= *text && *text <= 'z' ? *text - 'a' + 'A' : *text, text + 1);
}

void print_help(void)
{
	puts("usage: nabla-run [OPTION…] IMAGE [-- COMMAND [ARG…]]\n"
	     "\n"
	     "Starts a virtual machine in one host process with IMAGE, an ext2, ext3 or ext4 file system, as its "
	     "root,\n"
	     "and runs COMMAND in it: by default an interactive shell. The command's exit status becomes that of\n"
	     "nabla-run; 128+N after signal N; 124 after --timeout; 125 when nabla-run itself failed.");
	for (const struct row *row = option_table; row->name; row++) {
		if (is_group(row)) {
			printf("\n%s\n", row->name);
			continue;
		}
		char left[64];
		write_title(left, sizeof left, row);
		printf("  %-*s %s", HELP_COLUMN, left, row->help);
		if (row->default_text)
			printf("; %s if not given", row->default_text);
		putchar('\n');
	}
}

static const char head[] =
	"# nabla-run: start a virtual machine\n"
	"\n"
	"<!-- Made by `nabla-run --manual`, from the option table in launcher/table.c. -->\n"
	"\n"
	"```\n"
	"nabla-run [OPTION…] IMAGE [-- COMMAND [ARG…]]\n"
	"```\n"
	"\n"
	"Starts a virtual machine in one process of the host, with IMAGE, an ext2, ext3 or ext4 file system, as its\n"
	"root, and runs COMMAND in it: by default an interactive shell. On a terminal the guest has a terminal;\n"
	"otherwise the command's standard streams are plain bytes. It works as an ordinary user, as root, and in\n"
	"containers; it needs no `/dev/kvm`.\n"
	"\n"
	"```sh\n"
	"nabla-run alpine.ext3                                  # a shell; what it changes is kept\n"
	"nabla-run --ephemeral alpine.ext3 -- uname -a          # a command; what it changes vanishes\n"
	"nabla-run --publish 8080:80 alpine.ext3 -- httpd -f    # a server, reachable from the host\n"
	"```\n"
	"\n"
	"An option's value follows it as the next word, or behind `=` in the same one. Given twice, the last one\n"
	"holds, unless it may be repeated.\n";

static const char tail[] =
	"\n"
	"## Exit status\n"
	"\n"
	"| status | meaning |\n"
	"|---|---|\n"
	"| 0 to 255 | the command's own; 126 and 127 as in a shell: not executable, not found |\n"
	"| 128+N | the command or the machine was ended by signal N, or nabla-run was told to end by it |\n"
	"| 159 | 128 plus SIGSYS: the machine made a host call that its policy forbids |\n"
	"| 124 | `--timeout` was over |\n"
	"| 125 | nabla-run itself failed, and said why in one line; also a panic of the guest's kernel |\n"
	"\n"
	"## Signals\n"
	"\n"
	"SIGTERM, SIGINT, SIGHUP and SIGQUIT are the power button: process 1 of the guest gets a SIGTERM, ends services\n"
	"and programs, writes what is unwritten, and switches off. A machine that still runs after 8 seconds is killed,\n"
	"and so it is when a second such signal comes. On a terminal ^C and ^Z are keys for the guest.\n"
	"SIGTSTP stops the machine with nabla-run, SIGCONT continues both. A change of the window's size is passed\n"
	"on. A signal that the caller ignores (nohup) stays ignored. The terminal is put back into its own mode\n"
	"whatever happens, unless nabla-run is killed by SIGKILL; the machine ends even then.\n"
	"\n"
	"## What the machine has on the host\n"
	"\n"
	"Everything is opened before the machine starts; from the guest's first instruction on, a seccomp filter\n"
	"lets it use only that ([host-syscalls.md](host-syscalls.md)).\n"
	"\n"
	"| descriptor | what |\n"
	"|---|---|\n"
	"| 0, 1, 2 | the console: standard input, output and error of nabla-run |\n"
	"| 3 | IMAGE |\n"
	"| 4 to 10 | the disks of `--disk` |\n"
	"| 11 | the network |\n"
	"| 12 | a page of memory shared with nabla-run: the window's size, counters of host calls |\n"
	"\n"
	"It has an empty environment, no capability, no supplementary group (an ordinary user cannot give up its\n"
	"own), `no_new_privs`, and dies with nabla-run, which gives up the same privileges. Its limits:\n"
	"\n"
	"| limit | value |\n"
	"|---|---|\n"
	"| RLIMIT_AS | memory, the disks with `,cow`, and 4 MiB |\n"
	"| RLIMIT_FSIZE | the largest disk that is written; 0 without one. None if standard output or error is a "
	"regular file, as the limit would hold for that too |\n"
	"| RLIMIT_NPROC | 1 |\n"
	"| RLIMIT_NOFILE | 13 |\n"
	"| RLIMIT_CORE | 0 |\n"
	"\n"
	"## JSON\n"
	"\n"
	"`--json` writes one object in one line as the last line on standard error. Times are in microseconds; what\n"
	"is not known is `null`. The machine's own numbers come from the page which it can write to: it may lie\n"
	"about itself.\n"
	"\n"
	"| key | meaning |\n"
	"|---|---|\n"
	"| `exit` | exit status of nabla-run |\n"
	"| `reason` | `exit`, `signal` (of the machine), `terminated` (a signal to nabla-run ended it), `timeout` |\n"
	"| `signal` | number of the signal that ended the machine |\n"
	"| `launch_us` | from the start of nabla-run to the kernel's first instruction |\n"
	"| `boot_us` | from there to the first instruction of the guest's init |\n"
	"| `run_us` | from there to the end |\n"
	"| `total_us` | from the start of nabla-run to the end |\n"
	"| `peak_memory_kib` | the most memory that the host had given it at a time |\n"
	"| `host_calls` | how often it made each host call |\n"
	"\n"
	"A line of `--stats-fd` has `uptime_us`, the time since the start of nabla-run, `launch_us`, `boot_us` and\n"
	"`host_calls`. The first one is written 20 milliseconds after the machine was started, the last one when it\n"
	"has ended.\n"
	"\n"
	"## Environment\n"
	"\n"
	"`NABLA_KERNEL`: see `--kernel`. `TERM`: passed on to a guest on a terminal.\n";

void print_manual(void)
{
	fputs(head, stdout);
	for (const struct row *row = option_table; row->name; row++) {
		if (is_group(row)) {
			printf("\n## %s\n", row->name);
			continue;
		}
		char title[64];
		write_title(title, sizeof title, row);
		printf("\n### `%s`\n\n", title);
		print_sentence(row->help);
		if (row->default_text)
			printf(" Default: %s.", row->default_text);
		if (row->details)
			printf(" %s", row->details);
		if (row->example)
			printf(" Example: `%s`.", row->example);
		putchar('\n');
	}
	fputs(tail, stdout);
}
