// SPDX-License-Identifier: Apache-2.0
// nabla-snapshot saves the VM to the file of nabla-run --snapshot. It returns in this VM and in each VM that is restored
// from the file.
#include "snapshot.h"

#include "settings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "nabla-snapshot"
#define STATE_PATH "/proc/nabla/snapshot"
#define SHELL "/bin/sh"
#define LOADER "/lib/ld-musl-x86_64.so.1"
#define NAMES_MAX 512 /* of each folder */

static const char usage[] =
	"usage: nabla-snapshot [-- [COMMAND [ARG…]]]\n"
	"\n"
	"Saves this VM in the file of nabla-run --snapshot, and prints \"original\" or, in a VM that is\n"
	"restored from it, \"restored\". With --, prints nothing and, in a restored VM, executes COMMAND with the\n"
	"arguments, environment and working directory of nabla-run --restore; without COMMAND, the command of\n"
	"nabla-run --restore, by default a shell.\n";

bool is_snapshot_command(const char *name)
{
	const char *base = name ? strrchr(name, '/') : NULL;
	return name && !strcmp(base ? base + 1 : name, NAME);
}

/* Without stdio, which would make nabla-init larger and each boot longer. */
static void say(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		_exit(1);
}

static int failed(const char *what, int error)
{
	say(STDERR_FILENO, NAME ": ");
	say(STDERR_FILENO, what);
	say(STDERR_FILENO, ": ");
	say(STDERR_FILENO, strerror(error));
	say(STDERR_FILENO, "\n");
	return 1;
}

/* Returns the number of restores that led to this VM; -1 with errno set on failure. */
static long long generation(void)
{
	static const char key[] = "generation ";
	char text[256];
	int fd = open(STATE_PATH, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length < 0)
		return -1;
	text[length] = '\0';
	const char *at = strstr(text, key);
	return at ? atoll(at + sizeof key - 1) : 0;
}

/* A restored VM runs one of these next: the kernel preloads them, so they are part of the snapshot. */
static bool save(int fd)
{
	static const char request[] = "save " SHELL " " LOADER "\n";
	ssize_t length = sizeof request - 1;
	return fd >= 0 && write(fd, request, (size_t)length) == length;
}

/* The kernel reads the entries of a folder from the disk one by one, at their first lookup. */
static void look_up(const char *path)
{
	const struct dirent *entry;
	struct stat st;
	DIR *folder = opendir(path);
	for (size_t n = 0; folder && n < NAMES_MAX && (entry = readdir(folder)); n++)
		fstatat(dirfd(folder), entry->d_name, &st, 0);
	if (folder)
		closedir(folder);
}

/* Files that nearly every command needs are then in memory, and part of the snapshot. */
static void read_ahead(void)
{
	static const char *const files[] = {SHELL, LOADER};
	static const char *const folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	static char buffer[16384];
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		int fd = open(files[i], O_RDONLY | O_CLOEXEC);
		while (fd >= 0 && read(fd, buffer, sizeof buffer) > 0)
			;
		if (fd >= 0)
			close(fd);
	}
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
		look_up(folders[i]);
}

static int boot = -1;

void snapshot_prepare(void)
{
	read_ahead();
	boot = open(STATE_PATH, O_WRONLY | O_CLOEXEC);
}

bool snapshot_boot(void)
{
	return save(boot);
}

/* Returns only on failure, with the exit status. */
static int become(char **command)
{
	struct settings s;
	size_t own = 0, more = 0;
	static char *nothing[] = {NULL}, *shell[] = {"/bin/sh", NULL};
	settings_read(&s, nothing);
	while (command[own])
		own++;
	while (s.command && s.command[more])
		more++;
	char **words = calloc(own + more + 1, sizeof *words);
	if (!words)
		return failed("arguments", ENOMEM);
	memcpy(words, command, own * sizeof *words);
	if (more)
		memcpy(words + own, s.command, more * sizeof *words);
	if (!words[0])
		words = shell;
	if (chdir(s.workdir) < 0)
		return failed(s.workdir, errno);
	execvpe(words[0], words, s.env);
	int error = errno;
	failed(words[0], error);
	return error == ENOENT ? 127 : 126;
}

int snapshot_main(char **argv)
{
	char **command = NULL;
	if (argv[1]) {
		if (strcmp(argv[1], "--")) {
			bool help = !strcmp(argv[1], "--help");
			say(help ? STDOUT_FILENO : STDERR_FILENO, usage);
			return help ? 0 : 2;
		}
		command = argv + 2;
	}
	long long before = generation();
	if (before < 0)
		return failed(STATE_PATH, errno);
	if (!save(open(STATE_PATH, O_WRONLY | O_CLOEXEC))) {
		if (errno != ENXIO)
			return failed("cannot save this VM", errno);
		say(STDERR_FILENO, NAME ": cannot save this VM (start it with nabla-run --snapshot FILE; it can be saved once)\n");
		return 1;
	}
	bool restored = generation() != before;
	if (command)
		return restored ? become(command) : 0;
	say(STDOUT_FILENO, restored ? "restored\n" : "original\n");
	return 0;
}
