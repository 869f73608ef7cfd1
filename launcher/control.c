// SPDX-License-Identifier: Apache-2.0
#include "control.h"

#include "broker_loop.h"
#include "confine.h"
#include "control_folder.h"
#include "control_remover.h"
#include "descriptors.h"
#include "diag.h"
#include "status.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_MAX (UINT64_C(128) << 20) /* see struct broker; address space of the program included */

/* The socket that this process has created, to be removed wherever the process ends. */
static struct {
	pid_t owner;
	int folder;
	const char *name;
	struct stat socket;
	struct remover remover;
} made;

static void remove_socket(void)
{
	struct stat now;
	bool is_left = false;
	if (made.owner != getpid())
		return;
	made.owner = 0;
	/* somebody may have removed it, and another VM may have its name */
	control_lock(made.folder);
	if (!fstatat(made.folder, made.name, &now, AT_SYMLINK_NOFOLLOW))
		is_left = now.st_dev == made.socket.st_dev && now.st_ino == made.socket.st_ino &&
			  unlinkat(made.folder, made.name, 0) < 0;
	else
		is_left = errno != ENOENT;
	control_unlock(made.folder);
	if (is_left)
		remover_end(&made.remover);
}

void control_open(const struct options *o, struct control *c)
{
	const char *why;
	int fd;
	*c = (struct control){.broker.ready = -1, .folder = -1, .listener = -1, .link = -1, .proc = -1};
	if (!o->name)
		return;
	c->folder = control_folder(true, &why);
	if (c->folder < 0)
		fail("set XDG_RUNTIME_DIR to a directory that only this user can access", "--name: cannot open the folder of sockets: %s",
		     why ? why : strerror(ENOENT));
	control_lock(c->folder);
	switch (control_connect(c->folder, o->name, &fd)) {
	case CONTROL_FOUND:
		close(fd);
		fail("choose another name, or stop that VM: nabla stop NAME", "--name: a VM named %s is running", o->name);
	case CONTROL_FOUND_STALE:
		unlinkat(c->folder, o->name, 0);
		break;
	case CONTROL_FOUND_NONE:
		break;
	case CONTROL_FOUND_ERROR:
		fail(NULL, "--name: %s is in use: %s", o->name, strerror(errno));
	}
	if (o->dry_run) {
		control_unlock(c->folder);
		return;
	}
	c->listener = control_listen(c->folder, o->name);
	if (c->listener < 0)
		fail(NULL, "--name: cannot create the socket %s: %s", o->name, strerror(errno));
	if (fstatat(c->folder, o->name, &made.socket, AT_SYMLINK_NOFOLLOW) < 0)
		fail(NULL, "--name: cannot create the socket %s: %s", o->name, strerror(errno));
	made.owner = getpid();
	made.folder = c->folder;
	made.name = o->name;
	made.remover.pipe = -1;
	atexit(remove_socket);
	control_unlock(c->folder);
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	c->proc = proc < 0 ? -1 : fd_move_high(proc);
}

/* --- the broker's process -------------------------------------------------------------------------------------------- */

/* No file, no new process or program, no signal, no socket except those of clients. */
static const uint16_t calls[] = {
	SYS_poll, SYS_recvfrom, SYS_sendto, SYS_accept4, SYS_getsockopt, SYS_close, SYS_write, SYS_clock_gettime, SYS_brk,
	SYS_munmap, SYS_madvise, SYS_restart_syscall, SYS_rt_sigreturn, SYS_exit_group,
};

/* Descriptors that the broker keeps, in this order. */
enum { KEPT_GUEST = SERVER_FIRST, KEPT_LISTENER, KEPT_LINK, KEPT_READY, KEPT_END };

static _Noreturn void serve(const struct options *o, const struct control *c, const struct server_ends *ends, int link,
			     const struct console_log *log)
{
	static struct broker_texts texts;
	pid_t launcher = getppid();
	const struct broker_files files = {KEPT_GUEST, KEPT_LISTENER, KEPT_LINK, geteuid()};
	struct broker *broker = mmap(NULL, sizeof *broker, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (broker == MAP_FAILED)
		fail(NULL, "out of memory");
	control_describe(o, launcher, &texts);
	texts.log = log;
	broker_init(broker, &texts);
	server_drop(o);
	server_keep((const int[]){ends->own, c->listener, link, ends->ready}, KEPT_END - KEPT_GUEST);
	server_limit(o, launcher);
	if (!confine_files(-1, true) || !confine_calls(calls, sizeof calls / sizeof *calls, MEMORY_MAX))
		fail(NULL, "cannot confine the broker of --name: %s", strerror(errno));
	server_ready(KEPT_READY);
	_exit(broker_loop(broker, &files) ? 0 : 1);
}

int control_start(const struct options *o, struct control *c, struct console_log *log)
{
	struct server_ends ends;
	int link[2];
	if (!o->name)
		return -1;
	remover_start(o, c->folder, o->name, &made.remover);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0)
		fail(NULL, "cannot create a socket pair: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		link[i] = fd_move_high(link[i]);
	if (log)
		console_log_share(log, 1);
	if (server_fork(&c->broker, &ends)) {
		close(link[0]);
		serve(o, c, &ends, link[1], log);
	}
	if (log)
		console_log_share(log, 0);
	close(link[1]);
	close(c->listener);
	c->listener = -1;
	c->link = link[0];
	return ends.vm;
}

/* --- the launcher ------------------------------------------------------------------------------------------------------ */

void control_wait(struct control *c)
{
	server_wait(&c->broker, "the broker of --name");
}

static void reap(void *context)
{
	struct control *c = context;
	if (c->broker.pid && waitpid(c->broker.pid, NULL, WNOHANG) == c->broker.pid)
		c->broker.pid = 0;
}

static void close_link(struct control *c)
{
	if (c->link >= 0)
		close(c->link);
	c->link = -1;
}

void control_check(struct control *c)
{
	pid_t before = c->broker.pid;
	reap(c);
	if (!before || c->broker.pid)
		return;
	note("warning: the broker of --name has ended; the VM continues without it");
	close_link(c);
	remove_socket();
}

int control_request(struct control *c)
{
	uint8_t request;
	ssize_t got = c->link < 0 ? -1 : recv(c->link, &request, 1, MSG_DONTWAIT);
	/* a broker that shuts its end down would wake nabla-run forever */
	if (!got)
		close_link(c);
	return got == 1 ? request : 0;
}

static void say(struct control *c, const char *text, size_t length)
{
	/* a broker that does not read gets no answer: it must not block the launcher */
	if (c->link >= 0 && send(c->link, text, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

void control_done(struct control *c)
{
	say(c, ".", 1);
}

static uint64_t processor_us(pid_t vm)
{
	clockid_t clock;
	struct timespec t;
	if (clock_getcpuclockid(vm, &clock) || clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Returns the resident memory in KiB, 0: unknown. */
static uint64_t resident_kib(const struct control *c, pid_t vm)
{
	char name[32], text[128];
	unsigned long long pages = 0;
	snprintf(name, sizeof name, "%d/statm", vm);
	int fd = c->proc < 0 ? -1 : openat(c->proc, name, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return 0;
	text[length] = '\0';
	return sscanf(text, "%*u %llu", &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024 : 0;
}

void control_stats(struct control *c, const struct options *o, pid_t vm, uint64_t started_ns)
{
	char text[256];
	int length = snprintf(text, sizeof text,
			      "{\"uptime_us\":%llu,\"cpu_us\":%llu,\"memory_kib\":%llu,\"memory_limit_kib\":%llu}",
			      (unsigned long long)(now_ns() - started_ns) / 1000, (unsigned long long)processor_us(vm),
			      (unsigned long long)resident_kib(c, vm), (unsigned long long)o->memory >> 10);
	say(c, text, (size_t)length);
}

void control_end(struct control *c)
{
	struct server *servers[] = {&c->broker};
	remove_socket();
	close_link(c);
	if (!c->broker.pid)
		return;
	server_end(servers, 1, reap, c);
	if (!c->broker.pid)
		return;
	kill(c->broker.pid, SIGKILL);
	waitpid(c->broker.pid, NULL, 0);
}
