// SPDX-License-Identifier: Apache-2.0
#include "waiting.h"

#include "cgroup.h"
#include "channel.h"
#include "console.h"
#include "diag.h"
#include "guest/protocol.h"
#include "hooks.h"
#include "link.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATE_MAX 65536

/* Above all numbers that nabla-run and the VM use. */
enum {
	/* With --jail, nabla-run leaves the mount namespace. A namespace that no process and no descriptor keeps loses its
	 * mounts, * which the file server needs.
	 */
	MOUNTS_FD = 100,
	FIFO_FD, /* a path */
};
static const char path_of_fifo[] = "/proc/self/fd/101";

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return good;
}

/* Mounts need it. The caller is root inside, and no other user is mapped. */
static void enter_user_namespace(void)
{
	char *uid = format_text("0 %u 1", geteuid()), *gid = format_text("0 %u 1", getegid());
	if (unshare(CLONE_NEWUSER) < 0 || !write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/uid_map", uid) ||
	    !write_file("/proc/self/gid_map", gid))
		fail("the host must allow user namespaces", "an ordinary user needs a user namespace: %s", strerror(errno));
}

/* An interface of the engine would be missing in the VM. */
static void check_no_interfaces(const struct container *c)
{
	struct ifaddrs *all;
	if (getifaddrs(&all) < 0)
		return;
	for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
		if (!(one->ifa_flags & IFF_UP) || one->ifa_flags & IFF_LOOPBACK)
			continue;
		if (!c->no_network_accepted)
			fail("use --network none, or set the annotation " ANNOTATION "network=none",
			     "the network namespace has the interface %s, which a VM cannot use yet", one->ifa_name);
		warn("the VM has no network: the interface %s of the network namespace is not used", one->ifa_name);
		break;
	}
	freeifaddrs(all);
}

static void join_network(const struct container *c)
{
	if (!c->network_path)
		return;
	int fd = open(c->network_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		fail(NULL, "cannot join the network namespace %s: %s", c->network_path, strerror(errno));
	close(fd);
	check_no_interfaces(c);
}

/* Opens a file at the given number. */
static void keep(int number, const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0 || dup2(fd, number) < 0)
		fail(NULL, "cannot open %s: %s", path, strerror(errno));
	if (fd != number)
		close(fd);
}

/* nabla-run is beside nabla-oci. */
static const char *find_nabla_run(void)
{
	static char path[PATH_MAX + 16];
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
	if (length < 0)
		fail(NULL, "cannot search for nabla-run: /proc/self/exe: %s", strerror(errno));
	path[length] = '\0';
	strcpy(strrchr(path, '/') + 1, "nabla-run");
	if (access(path, X_OK) < 0)
		fail("install nabla-run and the kernel beside nabla-oci", "cannot run %s: %s", path, strerror(errno));
	return path;
}

/* The engine limits the container, and its log limits the output. */
static char **launcher_words(const struct waiting *w, const char *program)
{
	static char *words[40];
	static const char *const fixed[] = {"--jail", "--cpu-time", "none", "--max-output", "none", "--max-cow", "none", "--nice",
					    "0", "--name", CHANNEL_NAME, "--init", GUEST_DIRECTORY "/" GUEST_INIT};
	const struct container *c = w->container;
	size_t count = 0;
	words[count++] = format_text("%s", program);
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		words[count++] = format_text("%s", fixed[i]);
	words[count++] = format_text("--run-as=%u:%u", w->uid, w->gid);
	words[count++] = format_text("--memory=%lluK", (unsigned long long)c->memory >> 10);
	if (c->hostname)
		words[count++] = format_text("--hostname=%s", c->hostname);
	if (c->kernel)
		words[count++] = format_text("--kernel=%s", c->kernel);
	words[count++] = format_text("%s", w->root);
	return words;
}

static void reset_signals(void)
{
	sigset_t none;
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void wait_for_start(const struct waiting *w)
{
	static char state[STATE_MAX];
	struct json_object *hooks = NULL;
	log_to_parent(w->link);
	reset_signals();
	setsid();
	if (w->slave >= 0)
		console_become(w->slave);
	/* From here on, the limits apply to everything. */
	if (w->cgroup)
		cgroup_join(w->cgroup);
	const char *program = find_nabla_run();
	join_network(w->container);
	if (geteuid())
		enter_user_namespace();
	mounts_make(w->container, w->root, w->guest);
	link_done(w->link);
	ssize_t got = read(w->link, state, sizeof state - 1);
	if (got <= 0)
		_exit(EXIT_FAILURE_OWN);
	state[got] = '\0';
	if (json_object_object_get_ex(w->container->document, "hooks", &hooks))
		hooks_run(hooks, "createContainer", state, true);
	char **words = launcher_words(w, program);
	/* where nabla-run makes the socket of its control channel */
	if (setenv("XDG_RUNTIME_DIR", w->state, 1) < 0)
		fail(NULL, "out of memory");
	keep(MOUNTS_FD, "/proc/self/ns/mnt", O_RDONLY);
	keep(FIFO_FD, w->fifo, O_PATH | O_NOFOLLOW);
	link_done(w->link);
	/* The VM must not inherit descriptors that the engine left open. */
	syscall(SYS_close_range, 3, MOUNTS_FD - 1, 0);
	syscall(SYS_close_range, FIFO_FD + 1, ~0u, 0);
	/* start opens the FIFO and removes it, perhaps before this process arrives here. */
	int fifo = open(path_of_fifo, O_WRONLY | O_CLOEXEC);
	if (fifo < 0)
		_exit(EXIT_FAILURE_OWN);
	close(FIFO_FD);
	/* start waits until this descriptor is closed: by execve, or after a message. */
	log_to_parent(fifo);
	execv(program, words);
	fail(NULL, "cannot run %s: %s", program, strerror(errno));
}
