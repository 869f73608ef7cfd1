// SPDX-License-Identifier: Apache-2.0
#include "client_tar.h"

#include "diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 256 /* of directories: each is an open descriptor */

unsigned tar_sum(const struct tar_header *header)
{
	const uint8_t *bytes = (const void *)header;
	size_t from = offsetof(struct tar_header, sum);
	unsigned sum = sizeof header->sum * ' ';
	for (size_t i = 0; i < sizeof *header; i++)
		if (i < from || i >= from + sizeof header->sum)
			sum += bytes[i];
	return sum;
}

static void put(int out, const void *data, size_t size)
{
	for (const char *at = data; size;) {
		ssize_t sent = write(out, at, size);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			_exit(EXIT_OWN_ERROR); /* the guest reads no more, and says why */
		at += sent;
		size -= (size_t)sent;
	}
}

static void put_padding(int out, uint64_t size)
{
	static const char zeros[TAR_BLOCK];
	put(out, zeros, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

static void put_header(int out, char type, const char *name, const char *target, const struct stat *st, uint64_t size)
{
	struct tar_header h = {.type = type, .magic = "ustar  "};
	memcpy(h.name, name, strnlen(name, sizeof h.name));
	memcpy(h.target, target, strnlen(target, sizeof h.target));
	snprintf(h.mode, sizeof h.mode, "%07o", (unsigned)st->st_mode & 0777);
	snprintf(h.uid, sizeof h.uid, "%07o", 0);
	snprintf(h.gid, sizeof h.gid, "%07o", 0);
	snprintf(h.time, sizeof h.time, "%011llo", st->st_mtime > 0 ? (unsigned long long)st->st_mtime & 077777777777 : 0);
	if (size < UINT64_C(1) << 33) {
		snprintf(h.size, sizeof h.size, "%011llo", (unsigned long long)size);
	} else { /* GNU's binary number */
		h.size[0] = (char)0x80;
		for (int i = 0; i < 8; i++)
			h.size[11 - i] = (char)(size >> 8 * i);
	}
	snprintf(h.sum, sizeof h.sum, "%06o", tar_sum(&h));
	put(out, &h, sizeof h);
}

static void put_long(int out, char type, const char *text, const struct stat *st)
{
	size_t size = strlen(text) + 1;
	if (size <= TAR_NAME)
		return;
	put_header(out, type, "././@LongLink", "", st, size);
	put(out, text, size);
	put_padding(out, size);
}

static void put_entry(int out, char type, const char *name, const char *target, const struct stat *st, uint64_t size)
{
	put_long(out, 'L', name, st);
	put_long(out, 'K', target, st);
	put_header(out, type, name, target, st, size);
}

/* A file that shrinks at the same time gets zeros, one that grows is cut. */
static void put_file(int out, int fd, uint64_t size)
{
	static char data[1 << 16];
	for (uint64_t left = size; left;) {
		size_t most = left < sizeof data ? (size_t)left : sizeof data;
		ssize_t got = read(fd, data, most);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail(NULL, "cannot read a file: %s", strerror(errno));
		if (!got)
			memset(data, 0, most);
		put(out, data, got ? (size_t)got : most);
		left -= got ? (size_t)got : most;
	}
	put_padding(out, size);
}

static void put_directory(int out, int directory, char *name, size_t length, int depth);

static void put_one(int out, int directory, const char *base, char *name, size_t length, int depth)
{
	char target[TAR_NAME_MAX + 1];
	struct stat st;
	int fd = -1;
	if (fstatat(directory, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		fail(NULL, "cannot read %s: %s", name, strerror(errno));
	if (S_ISLNK(st.st_mode)) {
		ssize_t size = readlinkat(directory, base, target, sizeof target);
		if (size < 0 || size == sizeof target)
			fail(NULL, "cannot read link %s: %s", name, size < 0 ? strerror(errno) : "it is too long");
		target[size] = '\0';
		put_entry(out, '2', name, target, &st, 0);
		return;
	}
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
		fd = openat(directory, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	else
		note("%s is no file, directory or link, and is left out", name);
	if (fd < 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return;
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(NULL, "cannot open %s: %s", name, strerror(errno));
	if (S_ISREG(st.st_mode)) {
		put_entry(out, '0', name, "", &st, (uint64_t)st.st_size);
		put_file(out, fd, (uint64_t)st.st_size);
		close(fd);
	} else if (S_ISDIR(st.st_mode)) {
		put_entry(out, '5', name, "", &st, 0);
		put_directory(out, fd, name, length, depth + 1);
	} else {
		fail(NULL, "%s changes while it is copied", name);
	}
}

/* Closes the directory. */
static void put_directory(int out, int directory, char *name, size_t length, int depth)
{
	const struct dirent *entry;
	DIR *stream = depth < DEPTH_MAX ? fdopendir(directory) : NULL;
	if (!stream)
		fail(NULL, "cannot read directory %.*s: %s", (int)length, name, depth < DEPTH_MAX ? strerror(errno) : "too deep");
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		size_t size = strlen(entry->d_name) + 1;
		if (length + size + 1 > TAR_NAME_MAX)
			fail(NULL, "the name of %s in %.*s is too long", entry->d_name, (int)length, name);
		name[length] = '/';
		memcpy(name + length + 1, entry->d_name, size);
		put_one(out, dirfd(stream), entry->d_name, name, length + size, depth);
		name[length] = '\0';
	}
	closedir(stream);
}

void tar_write(int out, int directory)
{
	static const char end[2 * TAR_BLOCK];
	static char name[TAR_NAME_MAX + 1] = ".";
	put_directory(out, directory, name, 1, 0);
	put(out, end, sizeof end);
}
