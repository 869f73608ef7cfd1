// SPDX-License-Identifier: Apache-2.0
#include "processes.h"

#include "words.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)
#define COMMAND_MAX 1024
#define FIELD_MAX 24

/* Reads a file of a process; the text ends with a NUL. Returns its length. */
static size_t read_text(int process, const char *name, char *text, size_t size)
{
	int fd = openat(process, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = '\0';
	return got > 0 ? (size_t)got : 0;
}

static size_t add_number(char *line, size_t at, unsigned long long number)
{
	number_text(line + at, number);
	at += strlen(line + at);
	line[at++] = ' ';
	return at;
}

/* Process 1 is not the container's, nor are threads of the kernel, the children of process 2. Returns 0 for those. */
static size_t describe(int proc, const char *name, char line[3 * FIELD_MAX + COMMAND_MAX])
{
	char status[512];
	struct stat st;
	int process = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (process < 0)
		return 0;
	bool known = read_text(process, "stat", status, sizeof status) && !fstat(process, &st);
	/* the name of the program may contain anything */
	const char *open = strchr(status, '('), *end = strrchr(status, ')');
	unsigned long pid = strtoul(name, NULL, 10), parent = known && open && end && strlen(end) > 4 ? strtoul(end + 4, NULL, 10) : 2;
	if (pid <= 2 || parent == 2) {
		close(process);
		return 0;
	}
	size_t at = add_number(line, add_number(line, add_number(line, 0, pid), parent), st.st_uid);
	size_t length = read_text(process, "cmdline", line + at, COMMAND_MAX - 1);
	close(process);
	if (!length) { /* it has ended, and its parent does not know */
		length = (size_t)(end - open) + 1;
		memcpy(line + at, open, length);
	}
	while (length && !line[at + length - 1])
		length--;
	for (size_t i = at; i < at + length; i++)
		if (!isprint((unsigned char)line[i]))
			line[i] = line[i] ? '?' : ' ';
	line[at + length] = '\n';
	return at + length + 1;
}

int processes_list(int *out)
{
	char line[3 * FIELD_MAX + COMMAND_MAX];
	int ends[2];
	DIR *proc = opendir("/proc");
	if (!proc)
		return errno;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
		int error = errno;
		closedir(proc);
		return error;
	}
	/* all of the answer must fit: process 1 does not wait for who reads it */
	fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
	int error = 0;
	for (struct dirent *entry; !error && (entry = readdir(proc));) {
		size_t length = isdigit((unsigned char)*entry->d_name) ? describe(dirfd(proc), entry->d_name, line) : 0;
		if (length && write(ends[1], line, length) != (ssize_t)length)
			error = EFBIG;
	}
	closedir(proc);
	close(ends[1]);
	if (error)
		close(ends[0]);
	else
		*out = ends[0];
	return error;
}
