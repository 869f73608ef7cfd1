// SPDX-License-Identifier: Apache-2.0
#include "exec.h"

#include "channel.h"
#include "console.h"
#include "diag.h"
#include "guest_files.h"
#include "link.h"
#include "proxy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void container_exec(const struct exec_call *call)
{
	static struct process process;
	struct state s;
	const char *why;
	int link[2] = {-1, -1};
	state_load(call->id, &s, false);
	if (s.status == PAUSED)
		fail("resume it first", "container %s is paused and runs nothing", call->id);
	if (s.status != RUNNING)
		fail(NULL, "container %s is %s; only a running one can run programs", call->id, status_names[s.status]);
	exec_process(call, &s, &process);
	struct proxy proxy = {.state = &s, .program = process.args[0], .terminal = process.terminal, .slave = -1, .link = -1};
	proxy.words = process_words(&process, &proxy.length);
	if (proxy.length > CONTROL_CONTENT_MAX - CONTROL_START_SIZE)
		fail("copy them into a file", "arguments and environment of %s are longer than 64 KB", proxy.program);
	/* otherwise the caller's own terminal serves */
	if (call->detach)
		proxy.slave = console_open(&process, call->console_socket);
	proxy.channel = channel_open(&s, &why);
	if (proxy.channel < 0)
		fail(NULL, "cannot run %s in container %s: %s", proxy.program, call->id, why);
	if (!call->detach) {
		proxy.pid_file = call->pid_file;
		proxy_run(&proxy);
	}
	link_make(link);
	pid_t pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!pid) {
		close(link[0]);
		proxy.link = link[1];
		proxy_run(&proxy);
	}
	close(link[1]);
	link_wait(link[0]);
	if (call->pid_file)
		write_pid_file(call->pid_file, pid);
}
