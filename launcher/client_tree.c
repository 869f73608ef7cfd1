// SPDX-License-Identifier: Apache-2.0
// One process exchanges data with the broker, another one packs or unpacks.
#include "client_tree.h"

#include "client.h"
#include "client_tar.h"
#include "confine.h"
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNPACK "mkdir -p -- \"$1\" && cd -- \"$1\" && exec tar -x -f -"
#define PACK "cd -- \"$1\" && exec tar -c -f - ."

static struct peer peer;

/* Runs a script in the guest, $1: the path. Returns the wait status. */
static int run_script(const char *script, const char *path, const struct streams *streams)
{
	char *arguments[] = {(char[]){"sh"}, (char[]){"-c"}, strdup(script), (char[]){"sh"}, strdup(path)};
	struct request r = {.head = {.kind = CONTROL_EXEC, .arguments = 5}, .user = "", .path = "", .arguments = arguments};
	if (!arguments[2] || !arguments[4])
		fail(NULL, "out of memory");
	if (streams->in >= 0)
		r.head.flags |= CONTROL_INPUT;
	return (int)session_run(&peer, &r, streams);
}

static void check_status(const char *path, int status)
{
	if (status)
		fail("see what the guest says: nabla exec NAME -- tar -c -f /dev/null PATH", "VM %s: tar failed for %s, status %d",
		     peer.name, path, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* Returns the process ID, 0 in the child. */
static pid_t start(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	return pid;
}

/* The child has said what went wrong. */
static bool ends_well(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	if (WIFSIGNALED(status))
		fail(NULL, "a process was killed by signal %d", WTERMSIG(status));
	return !WEXITSTATUS(status);
}

int tree_in(const char *directory, const char *name, const char *path)
{
	int ends[2], fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail_with(EXIT_BAD_INPUT, errno == ENOTDIR ? "leave out -r" : NULL, "cannot open %s: %s", directory, strerror(errno));
	peer_open(&peer, name);
	pid_t pid = start(ends);
	if (!pid) {
		close(peer.fd);
		close(ends[0]);
		tar_write(ends[1], fd);
		exit(0);
	}
	close(ends[1]);
	int status = run_script(UNPACK, path, &(const struct streams){.in = ends[0], .out = {-1, -1}});
	close(ends[0]);
	/* if packing fails, tar does, too */
	bool good = ends_well(pid);
	if (good)
		check_status(path, status);
	return good ? 0 : EXIT_OWN_ERROR;
}

/* A process that unpacks, and a pipe on which it says why it stopped. */
struct unpacking {
	pid_t pid;
	int reason;
};

static _Noreturn void unpack(int in, int directory, int reason)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || !confine_files(directory, false))
		fail(NULL, "cannot confine a process: %s", strerror(errno));
	const char *why = tar_read(in, directory);
	exit(why && write(reason, why, strlen(why)) < 0 ? EXIT_OWN_ERROR : 0);
}

/* Waits for it. Fails if it stopped, but not for the end of its input if the guest's tar failed. */
static void finish(const struct unpacking *u, bool failed)
{
	char why[8192];
	size_t length = 0;
	ssize_t got;
	while (length < sizeof why - 1 && (got = read(u->reason, why + length, sizeof why - 1 - length)) > 0)
		length += (size_t)got;
	why[length] = '\0';
	if (!ends_well(u->pid))
		exit(EXIT_OWN_ERROR);
	if (length && !(failed && !strcmp(why, TAR_CUT)))
		fail("what was unpacked before stays", "%s", why);
}

static void finish_early(void *context)
{
	finish(context, false);
	fail(NULL, "the archive goes on behind its end");
}

int tree_out(const char *name, const char *path, const char *directory)
{
	int ends[2], reason[2];
	bool is_new = !mkdir(directory, 0777);
	int fd = is_new || errno == EEXIST ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0)
		fail_with(EXIT_BAD_INPUT, NULL, "cannot create directory %s: %s", directory, strerror(errno));
	peer_open(&peer, name);
	if (pipe2(reason, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	struct unpacking u = {start(ends), reason[0]};
	if (!u.pid) {
		close(peer.fd);
		close(ends[1]);
		unpack(ends[0], fd, reason[1]);
	}
	close(ends[0]);
	close(reason[1]);
	const struct streams streams = {.in = -1, .out = {ends[1], -1}, .unread = finish_early, .context = &u};
	int status = run_script(PACK, path, &streams);
	close(ends[1]);
	finish(&u, status);
	check_status(path, status);
	return 0;
}
