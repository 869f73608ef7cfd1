// SPDX-License-Identifier: Apache-2.0
#include "state.h"

#include "channel.h"
#include "diag.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ID_MAX 1024
#define FILE_NAME "state.json"

const char *const status_names[] = {"creating", "created", "running", "stopped", "paused"};

static int all = -1;
static const char *all_path;

static void make_directories(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		fail("--root names a directory for the state of containers", "cannot create %s: %s", path, strerror(errno));
}

void state_open_root(const char *root, const char *id)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char *path = root			      ? format_text("%s", root)
		     : geteuid() && runtime && *runtime ? format_text("%s/nabla-oci", runtime)
							: format_text("/run/nabla-oci");
	struct stat st;
	if (*path != '/') {
		char *here = getcwd(NULL, 0);
		path = format_text("%s/%s", here ? here : "", path);
	}
	make_directories(path);
	all = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (all < 0 || fstat(all, &st) < 0)
		fail(NULL, "cannot open %s: %s", path, strerror(errno));
	/* A user who can write there controls what runs. */
	if (st.st_uid != geteuid() || st.st_mode & 022)
		fail("remove it, or choose another one with --root", "%s belongs to another user, or others may write to it", path);
	all_path = path;
	if (!id)
		return;
	size_t length = strlen(id);
	bool good = length && length <= ID_MAX && *id != '.' && *id != '-';
	for (const char *letter = id; *letter; letter++)
		good &= isalnum((unsigned char)*letter) || strchr("_+-.", *letter);
	if (!good)
		fail("use letters, digits and _ + - . and begin with neither - nor .", "'%s' is not a container ID", id);
}

char *state_path(const char *id, const char *name)
{
	return format_text("%s/%s/%s", all_path, id, name);
}

int state_create(const char *id)
{
	if (mkdirat(all, id, 0700) < 0)
		fail(errno == EEXIST ? "delete it, or choose another ID" : NULL, "cannot create container %s: %s", id,
		     errno == EEXIST ? "a container with this ID exists" : strerror(errno));
	int directory = openat(all, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0 || mkdirat(directory, STATE_GUEST, 0700) < 0 || mkfifoat(directory, STATE_FIFO, 0600) < 0) {
		int error = errno;
		state_remove(id);
		fail(NULL, "cannot create container %s: %s", id, strerror(error));
	}
	return directory;
}

static void empty(int directory)
{
	DIR *entries = fdopendir(dup(directory));
	for (struct dirent *entry; entries && (entry = readdir(entries));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(directory, entry->d_name, 0);
	if (entries)
		closedir(entries);
}

void state_remove(const char *id)
{
	int directory = openat(all, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	static const char *const names[] = {STATE_GUEST, CHANNEL_DIRECTORY};
	for (size_t i = 0; directory >= 0 && i < sizeof names / sizeof *names; i++) {
		int inner = openat(directory, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (inner < 0)
			continue;
		empty(inner);
		close(inner);
		unlinkat(directory, names[i], AT_REMOVEDIR);
	}
	if (directory >= 0) {
		empty(directory);
		close(directory);
	}
	unlinkat(all, id, AT_REMOVEDIR);
}

/*
 * Returns the time at which a process started, in ticks since boot; 0: it has ended. Together with the ID, it identifies the
 * process forever. *stopped: whether a signal has stopped it.
 */
static uint64_t start_time(pid_t pid, bool *stopped)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = '\0';
	/* The name of the program may contain anything: the next field starts after the last parenthesis. */
	char *field = strrchr(text, ')');
	if (!field || strlen(field) < 4 || strchr("ZX", field[2]))
		return 0;
	*stopped = field[2] == 'T';
	for (int i = 0; i < 20 && field; i++)
		field = strchr(field + 1, ' ');
	return field ? strtoull(field, NULL, 10) : 0;
}

struct json_object *state_document(const struct container *c, const char *id, const char *bundle, pid_t pid,
				   const char *cgroup)
{
	struct json_object *document = json_object_new_object(), *member;
	bool stopped;
	char now[32];
	time_t seconds = time(NULL);
	struct tm utc;
	strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
	json_object_object_add(document, "ociVersion", json_object_new_string(SPECIFICATION));
	json_object_object_add(document, "id", json_object_new_string(id));
	json_object_object_add(document, "pid", json_object_new_int(pid));
	json_object_object_add(document, "bundle", json_object_new_string(bundle));
	json_object_object_add(document, "created", json_object_new_string(now));
	json_object_object_add(document, "processStart", json_object_new_uint64(pid ? start_time(pid, &stopped) : 0));
	if (cgroup)
		json_object_object_add(document, "cgroup", json_object_new_string(cgroup));
	/* Later changes of config.json have no effect. */
	static const char *const kept[] = {"annotations", "hooks", "process"};
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if (json_object_object_get_ex(c->document, kept[i], &member) && member)
			json_object_object_add(document, kept[i], json_object_get(member));
	return document;
}

void write_file_at(int directory, const char *name, const void *content, size_t length, unsigned mode)
{
	char *temporary = format_text(".%s.new", name);
	int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	const char *at = content;
	for (size_t left = length; fd >= 0 && left;) {
		ssize_t put = write(fd, at, left);
		if (put < 0)
			fail(NULL, "cannot write %s: %s", name, strerror(errno));
		at += put;
		left -= (size_t)put;
	}
	/* independent of the engine's umask */
	if (fd < 0 || fchmod(fd, mode) < 0 || close(fd) < 0 || renameat(directory, temporary, directory, name) < 0)
		fail(NULL, "cannot write %s: %s", name, strerror(errno));
	free(temporary);
}

void state_write(int directory, struct json_object *document)
{
	const char *text = json_object_to_json_string_ext(document, JSON_C_TO_STRING_PLAIN);
	write_file_at(directory, FILE_NAME, text, strlen(text), 0600);
}

static struct json_object *member_of(struct json_object *document, const char *name)
{
	struct json_object *value = NULL;
	json_object_object_get_ex(document, name, &value);
	return value;
}

/* Opens the container's process, unless its ID now belongs to another process. */
static int open_process(const struct state *s, bool *stopped)
{
	uint64_t started = json_object_get_uint64(member_of(s->document, "processStart"));
	int pidfd = s->pid > 0 && started ? (int)syscall(SYS_pidfd_open, s->pid, 0) : -1;
	if (pidfd >= 0 && start_time(s->pid, stopped) == started)
		return pidfd;
	if (pidfd >= 0)
		close(pidfd);
	return -1;
}

bool state_load(const char *id, struct state *s, bool missing_ok)
{
	*s = (struct state){.id = id, .pidfd = -1};
	s->directory = openat(all, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->directory < 0) {
		if (missing_ok)
			return false;
		fail("list all containers: nabla-oci list", "container %s does not exist", id);
	}
	if (faccessat(s->directory, FILE_NAME, F_OK, 0) < 0) {
		/* create is still running, or was killed */
		s->document = json_object_new_object();
		json_object_object_add(s->document, "ociVersion", json_object_new_string(SPECIFICATION));
		json_object_object_add(s->document, "id", json_object_new_string(id));
		return true;
	}
	s->document = json_read(s->directory, FILE_NAME, format_text("the state of container %s", id));
	s->bundle = json_object_get_string(member_of(s->document, "bundle"));
	s->cgroup = json_object_get_string(member_of(s->document, "cgroup"));
	s->pid = json_object_get_int(member_of(s->document, "pid"));
	bool stopped = false;
	s->pidfd = open_process(s, &stopped);
	bool waits = !faccessat(s->directory, STATE_FIFO, F_OK, 0);
	s->status = s->pidfd < 0 ? STOPPED : waits ? CREATED : stopped ? PAUSED : RUNNING;
	return true;
}

char *state_text(struct json_object *document, enum status status, bool pretty)
{
	static const char *const shown[] = {"ociVersion", "id", "status", "pid", "bundle", "created", "annotations"};
	struct json_object *state = json_object_new_object(), *value;
	for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
		if (!strcmp(shown[i], "status"))
			json_object_object_add(state, shown[i], json_object_new_string(status_names[status]));
		else if (!strcmp(shown[i], "pid") && (status == STOPPED || status == CREATING))
			json_object_object_add(state, shown[i], json_object_new_int(
				status == STOPPED ? 0 : json_object_get_int(member_of(document, "pid"))));
		else if ((value = member_of(document, shown[i])))
			json_object_object_add(state, shown[i], json_object_get(value));
	}
	char *text = format_text("%s", json_object_to_json_string_ext(
		state, (pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : JSON_C_TO_STRING_PLAIN) |
			       JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(state);
	return text;
}

static int compare(const void *one, const void *other)
{
	return strcmp(*(char *const *)one, *(char *const *)other);
}

char **state_list(void)
{
	DIR *entries = fdopendir(dup(all));
	char **names = allocate(1, sizeof *names);
	size_t count = 0;
	for (struct dirent *entry; entries && (entry = readdir(entries));) {
		if (*entry->d_name == '.')
			continue;
		names = realloc(names, (count + 2) * sizeof *names);
		if (!names)
			fail(NULL, "out of memory");
		names[count++] = format_text("%s", entry->d_name);
		names[count] = NULL;
	}
	if (entries)
		closedir(entries);
	qsort(names, count, sizeof *names, compare);
	return names;
}
