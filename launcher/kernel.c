// SPDX-License-Identifier: Apache-2.0
#include "kernel.h"

#include "descriptors.h"
#include "diag.h"
#include "open_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Relative to the directory of nabla-run: an unpacked release, the build tree, an installation under a prefix. */
static const char *const kernel_paths[] = {"vmlinux", "../kernel/vmlinux", "../lib/nabla/vmlinux"};

/* The same options with which nabla-init mounts other directories. */
#define ROOT_FLAGS "trans=host,version=9p2000.L,access=any,msize=262144"

struct words {
	char **list;
	size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(void *to, const char *format, ...)
{
	struct words *words = to;
	va_list args;
	char *word;
	va_start(args, format);
	int length = vasprintf(&word, format, args);
	va_end(args);
	char **list = realloc(words->list, (words->count + 2) * sizeof *list);
	if (length < 0 || !list)
		fail(NULL, "out of memory");
	words->list = list;
	words->list[words->count++] = word;
	words->list[words->count] = NULL;
}

/* fd: from path_open(). It needs no read permission, and the VM's user need not be able to reach the path. */
static void check_kernel(const char *path, int fd, struct kernel *kernel)
{
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(NULL, "cannot open kernel %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		fail(NULL, "kernel %s is not a regular file", path);
	if (!path_is_executable(fd))
		fail(NULL, "cannot run kernel %s: %s", path, strerror(errno));
	*kernel = (struct kernel){path, fd_move_high(fd)};
}

void kernel_open(const struct options *options, struct kernel *kernel)
{
	const char *given = options->kernel ? options->kernel : getenv("NABLA_KERNEL");
	if (given && *given)
		return check_kernel(given, path_open(given, options->follow_symlinks), kernel);

	static char path[PATH_MAX + 64];
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
	if (length < 0)
		fail("give it with --kernel", "cannot search for the kernel: /proc/self/exe: %s", strerror(errno));
	path[length] = '\0';
	char *name = strrchr(path, '/') + 1;
	for (size_t i = 0; i < sizeof kernel_paths / sizeof *kernel_paths; i++) {
		strcpy(name, kernel_paths[i]);
		int fd = path_open(path, options->follow_symlinks);
		if (fd >= 0)
			return check_kernel(path, fd, kernel);
	}
	*name = '\0';
	fail("build it with ./doit.sh kernel, or give it with --kernel or NABLA_KERNEL",
	     "no kernel vmlinux near %snabla-run", path);
}

static void add_appended(struct words *words, const char *text)
{
	while (*(text += strspn(text, " \t\n\v\f\r"))) {
		int length = (int)strcspn(text, " \t\n\v\f\r");
		add(words, "%.*s", length, text);
		text += length;
	}
}

static void add_disks(struct words *words, const struct options *o)
{
	for (size_t i = o->disks[0].directory ? 1 : 0; i < o->disk_count; i++)
		add(words, "ubd%zu=fd:%zu%s", i, FD_DISK + i,
		    o->disks[i].read_only ? ",ro" : o->disks[i].cow ? ",cow" : "");
	for (size_t i = o->disks[0].directory ? SHARE_ROOT : 1; i <= o->mount_count; i++)
		add(words, "stream%zu=fd:%zu,share%zu", i, FD_STREAM + i, i);
	if (o->name)
		add(words, "stream%d=fd:%d,control", SHARES_MAX, FD_CONTROL);
	else if (o->save_boot) /* starts with --name use this snapshot, too */
		add(words, "control=later");
	if (o->disks[0].directory) {
		add(words, "root=share%d", SHARE_ROOT);
		add(words, "rootfstype=9p");
		add(words, "rootflags=" ROOT_FLAGS);
		add(words, o->disks[0].read_only ? "ro" : "rw");
		return;
	}
	add(words, "root=/dev/ubda");
	/* The ext4 driver handles ext2 and ext3 too; naming it spares the kernel a search. */
	add(words, "rootfstype=ext4");
	add(words, o->disks[0].read_only ? "ro" : "rw");
}

/* Returns true if a write can outlive the guest; otherwise nabla-init need not sync the disks at the end. */
static bool disks_are_written(const struct options *o)
{
	for (size_t i = 0; i < o->disk_count; i++)
		if (!o->disks[i].read_only && !o->disks[i].cow)
			return true;
	for (size_t i = 1; i <= o->mount_count; i++)
		if (!o->shares[i].read_only)
			return true;
	return false;
}

static void add_settings(struct words *words, const struct options *o, bool terminal)
{
	for (char **argument = o->command; *argument; argument++)
		add(words, "arg=%s", *argument);
	/* Guest programs draw on the host's terminal. --env comes later and overrides TERM. */
	const char *term = terminal ? getenv("TERM") : NULL;
	if (term && *term)
		add(words, "env=TERM=%s", term);
	for (size_t i = 0; i < o->env_count; i++)
		add(words, "env=%s", o->env[i]);
	for (size_t i = 0; i < o->service_count; i++)
		add(words, "service=%s", o->services[i]);
	for (size_t i = 1; i <= o->mount_count; i++)
		add(words, "mount=share%zu:%s:%s:%s", i, o->shares[i].read_only ? "ro" : "rw",
		    o->shares[i].cache ? "loose" : "none", o->shares[i].guest);
	add(words, "workdir=%s", o->workdir);
	add(words, "hostname=%s", o->hostname);
	if (o->user)
		add(words, "user=%s", o->user);
	network_settings(o, add, words);
	add(words, "tty=%d", terminal);
	if (o->name)
		add(words, "control=1");
	if (!disks_are_written(o))
		add(words, "discard=1");
	if (o->save_boot)
		add(words, "save=boot");
}

char **kernel_arguments(const struct options *o, const struct kernel *kernel, const struct network *network,
			bool terminal)
{
	struct words words = {NULL, 0};
	add(&words, "%s", kernel->path);
	add(&words, "mem=%lluK", (unsigned long long)(o->memory >> 10));
	add_disks(&words, o);
	if (o->net.kind != NET_NONE)
		add(&words, "eth0=fd:%d%s", FD_NETWORK, network->stream ? ",stream" : "");
	add(&words, "status=fd:%d", FD_STATUS);
	if (o->snapshot)
		add(&words, "snapshot=fd:%d%s", FD_SNAPSHOT,
		    o->rehearse ? ",rehearse" : o->snapshot_then_exit ? ",exit" : "");
	if (o->restore)
		add(&words, "restore=fd:%d", FD_RESTORE);
	if (o->trace_policy)
		add(&words, "policy=trace");
	add(&words, "init=%s", o->init);
	/* "quiet" would still show the message of a power-off. A panic is shown at any level. */
	add(&words, o->verbose ? "loglevel=7" : "loglevel=0");
	if (o->append)
		add_appended(&words, o->append);
	add(&words, "--");
	add_settings(&words, o, terminal);
	return words.list;
}
