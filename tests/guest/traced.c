// SPDX-License-Identifier: Apache-2.0
// A command that asks to be traced by its parent, which is the VM's init: it continues at every stop. Arguments: how to
// stop, one of the names below. The exit status is 5.
#define _GNU_SOURCE
#include "util.h"

#include <sys/ptrace.h>

static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
	caught = signal;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "signal";
	if (argc < 3) {
		signal(SIGUSR1, on_signal);
		signal(SIGTRAP, on_signal);
		if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
			return 1;
	}
	if (!strcmp(how, "signal")) {
		raise(SIGUSR1);
		return caught == SIGUSR1 ? 5 : 2;
	}
	if (!strcmp(how, "trap")) {
		raise(SIGTRAP);
		return caught == SIGTRAP ? 5 : 3;
	}
	if (!strcmp(how, "exec")) {
		if (argc > 2)
			return 5;
		execl(SELF, SELF, how, "again", NULL);
		return 4;
	}
	if (!strcmp(how, "kill"))
		raise(SIGTERM);
	return 6;
}
