// SPDX-License-Identifier: Apache-2.0
// A VM that root starts runs as another user, and so does nabla-run from then on. A process that stays root, without
// capabilities, removes the socket at the end. It waits until a pipe is closed, and can do nothing else.
#include "control_remover.h"

#include "confine.h"
#include "descriptors.h"
#include "diag.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMORY_MAX (UINT64_C(64) << 20)

static const uint16_t calls[] = {SYS_read, SYS_write, SYS_close, SYS_flock, SYS_newfstatat, SYS_unlinkat, SYS_rt_sigreturn, SYS_exit_group};

enum { KEPT_PIPE = SERVER_FIRST, KEPT_FOLDER, KEPT_READY, KEPT_END };

static _Noreturn void wait_and_remove(const struct options *o, int folder, const char *name, int pipe, int ready)
{
	struct options as_root = *o;
	struct stat made, now;
	char byte;
	as_root.run_as = (struct identity){0, getegid()};
	as_root.jail = false;
	server_drop(&as_root);
	server_keep((const int[]){pipe, folder, ready}, KEPT_END - KEPT_PIPE);
	if (fstatat(KEPT_FOLDER, name, &made, AT_SYMLINK_NOFOLLOW) < 0 || !confine_files(KEPT_FOLDER, false) ||
	    !confine_calls(calls, sizeof calls / sizeof *calls, MEMORY_MAX))
		fail(NULL, "--name: cannot confine a process: %s", strerror(errno));
	server_ready(KEPT_READY);
	while (read(KEPT_PIPE, &byte, 1) < 0 && errno == EINTR)
		;
	/* nabla-run may have been killed, and another VM may have its name */
	flock(KEPT_FOLDER, LOCK_EX);
	if (!fstatat(KEPT_FOLDER, name, &now, AT_SYMLINK_NOFOLLOW) && now.st_ino == made.st_ino && now.st_dev == made.st_dev)
		unlinkat(KEPT_FOLDER, name, 0);
	_exit(0);
}

void remover_start(const struct options *o, int folder, const char *name, struct remover *remover)
{
	int ends[2], ready[2];
	*remover = (struct remover){.pipe = -1, .process.ready = -1};
	if (geteuid() || !o->run_as.uid)
		return;
	if (pipe2(ends, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		ends[i] = fd_move_high(ends[i]);
		ready[i] = fd_move_high(ready[i]);
	}
	remover->process.pid = fork();
	if (remover->process.pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!remover->process.pid) {
		close(ends[1]);
		wait_and_remove(o, folder, name, ends[0], ready[1]);
	}
	close(ends[0]);
	close(ready[1]);
	remover->pipe = ends[1];
	remover->process.ready = ready[0];
	server_wait(&remover->process, "the process that removes the socket of --name");
}

void remover_end(struct remover *remover)
{
	if (remover->pipe < 0)
		return;
	close(remover->pipe);
	remover->pipe = -1;
	waitpid(remover->process.pid, NULL, 0);
}
