// SPDX-License-Identifier: Apache-2.0
// create: checks the bundle, prepares the container, and starts the container's process, which later becomes nabla-run.
#include "create.h"

#include "console.h"
#include "container.h"
#include "diag.h"
#include "guest_files.h"
#include "hooks.h"
#include "link.h"
#include "state.h"
#include "waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	const char *id, *cgroup;
	pid_t pid;
} undo;

static void clean_up(void)
{
	on_failure(NULL);
	if (undo.pid) {
		kill(undo.pid, SIGKILL);
		waitpid(undo.pid, NULL, 0);
	}
	if (undo.cgroup)
		cgroup_remove(undo.cgroup);
	if (undo.id)
		state_remove(undo.id);
}

/* Returns the absolute path of a directory, without symbolic links. */
static char *directory_path(const char *path, const char *what)
{
	struct stat st;
	char *real = realpath(path, NULL);
	if (!real || stat(real, &st) < 0)
		fail(NULL, "%s %s: %s", what, path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		fail(NULL, "%s %s is not a directory", what, path);
	return real;
}

/* Relative paths in a bundle are relative to it. */
static const char *in_bundle(const char *bundle, const char *path)
{
	return *path == '/' ? path : format_text("%s/%s", bundle, path);
}

static void prepare_paths(struct container *c, const char *bundle, struct waiting *w)
{
	struct stat st;
	char *root = directory_path(in_bundle(bundle, c->root), "root.path");
	if (!strcmp(root, "/"))
		fail("give the directory of an unpacked image", "root.path: the host's own root cannot be shared");
	if (stat(root, &st) < 0)
		fail(NULL, "root.path %s: %s", root, strerror(errno));
	for (size_t i = 0; i < c->mount_count; i++)
		if (c->mounts[i].kind == MOUNT_BIND) {
			c->mounts[i].source = in_bundle(bundle, c->mounts[i].source);
			if (stat(c->mounts[i].source, &(struct stat){0}) < 0)
				fail(NULL, "mount at %s: %s: %s", c->mounts[i].destination, c->mounts[i].source, strerror(errno));
		}
	w->root = root;
	/* Files belong to root of the guest, and to the owner of the root directory on the host. */
	w->uid = geteuid() ? 0 : st.st_uid;
	w->gid = geteuid() ? 0 : st.st_gid;
}

void container_create(const struct creation *creation)
{
	static struct container c;
	static struct waiting w;
	int link[2], slave;
	char *bundle = directory_path(creation->bundle, "bundle");
	int directory = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		fail(NULL, "bundle %s: %s", bundle, strerror(errno));
	container_parse(json_read(directory, "config.json", format_text("%s/config.json", bundle)), &c);
	close(directory);
	prepare_paths(&c, bundle, &w);

	int state = state_create(creation->id);
	undo.id = creation->id;
	on_failure(clean_up);
	int guest = openat(state, STATE_GUEST, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	guest_files_write(&c, guest, geteuid() ? geteuid() : w.uid, geteuid() ? getegid() : w.gid);
	close(guest);
	w.container = &c;
	w.state = state_path(creation->id, "");
	w.guest = state_path(creation->id, STATE_GUEST);
	w.fifo = state_path(creation->id, STATE_FIFO);
	w.cgroup = undo.cgroup = cgroup_create(&c, creation->cgroups);
	w.slave = slave = console_open(&c.process, creation->console_socket);
	link_make(link);
	w.link = link[1];
	undo.pid = fork();
	if (undo.pid < 0) {
		undo.pid = 0;
		fail(NULL, "cannot start a process: %s", strerror(errno));
	}
	if (!undo.pid) {
		close(link[0]);
		wait_for_start(&w);
	}
	close(link[1]);
	if (slave >= 0)
		close(slave);
	link_wait(link[0]);
	struct json_object *document = state_document(&c, creation->id, bundle, undo.pid, undo.cgroup), *hooks = NULL;
	json_object_object_get_ex(c.document, "hooks", &hooks);
	const char *text = state_text(document, CREATING, false);
	hooks_run(hooks, "prestart", text, true);
	hooks_run(hooks, "createRuntime", text, true);
	/* The container's process runs the hooks of its namespaces. */
	if (write(link[0], text, strlen(text)) < 0)
		fail(NULL, "the container's process has ended before it was ready");
	link_wait(link[0]);
	if (creation->pid_file)
		write_pid_file(creation->pid_file, undo.pid);
	state_write(state, document);
	on_failure(NULL);
}
