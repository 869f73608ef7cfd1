// SPDX-License-Identifier: Apache-2.0
#include "server.h"

#include "descriptors.h"
#include "diag.h"
#include "jail.h"
#include "limits.h"
#include "privileges.h"
#include "status.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (4 << 20) /* requested of the socket; the host may grant less */
#define KEPT_MAX 8
#define END_NS (SERVER_END_S * UINT64_C(1000000000))
#define QUICK 20

bool server_fork(struct server *server, struct server_ends *ends)
{
	int pair[2], ready[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a socket pair: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		pair[i] = fd_move_high(pair[i]);
		ready[i] = fd_move_high(ready[i]);
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &(int){BUFFER}, sizeof(int));
	}
	*ends = (struct server_ends){.vm = pair[0], .own = pair[1], .ready = ready[1]};
	*server = (struct server){.pid = fork(), .ready = ready[0]};
	if (server->pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!server->pid) {
		close(pair[0]);
		close(ready[0]);
		return true;
	}
	close(pair[1]);
	close(ready[1]);
	return false;
}

void server_drop(const struct options *o)
{
	sigset_t none;
	sigemptyset(&none);
	/* The terminal's signals must not end it: it lives as long as the socket. */
	setsid();
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* the guest gets the error */
	if (o->jail)
		jail_enter();
	privileges_drop(o);
}

void server_keep(const int *descriptors, size_t count)
{
	for (size_t i = 0; i < count && i < KEPT_MAX; i++)
		if (dup2(descriptors[i], SERVER_FIRST + (int)i) < 0)
			fail(NULL, "cannot start a server: %s", strerror(errno));
	close_range_of(0, SERVER_STDERR - 1);
	close_range_of(SERVER_FIRST + (unsigned)count, ~0u);
}

void server_limit(const struct options *o, pid_t launcher)
{
	if (!limit_processor_time(o))
		fail(NULL, "cannot limit the processor time of a server: %s", strerror(errno));
	nice(o->nice);
	umask(0);
	/* Changing the user cancels it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != launcher)
		_exit(EXIT_OWN_ERROR);
}

void server_ready(int ready)
{
	if (write(ready, "", 1) != 1)
		_exit(EXIT_OWN_ERROR);
	close(ready);
	close(SERVER_STDERR);
}

void server_wait(struct server *server, const char *what)
{
	char byte;
	int status = 0;
	if (server->ready < 0)
		return;
	ssize_t got = read(server->ready, &byte, 1);
	close(server->ready);
	server->ready = -1;
	if (got == 1)
		return;
	waitpid(server->pid, &status, 0);
	if (WIFEXITED(status)) /* it has printed the reason */
		exit(EXIT_OWN_ERROR);
	fail(NULL, "%s was killed by signal %d", what, WTERMSIG(status));
}

static bool any_runs(struct server *const *servers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (servers[i]->pid)
			return true;
	return false;
}

void server_end(struct server *const *servers, size_t count, void (*check)(void *), void *context)
{
	uint64_t deadline = now_ns() + END_NS;
	check(context);
	/* most often they end at once */
	for (int turn = 0; any_runs(servers, count) && now_ns() < deadline; turn++) {
		nanosleep(&(struct timespec){0, turn < QUICK ? 50000 : 1000000}, NULL);
		check(context);
	}
}
