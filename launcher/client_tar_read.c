// SPDX-License-Identifier: Apache-2.0
// Everything here comes from a guest.
#include "client_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct reader {
	int in, root;
	char name[TAR_NAME_MAX + 1], target[TAR_NAME_MAX + 1]; /* of the next entry, if not empty */
};

static char error[2 * TAR_NAME_MAX + 256];

static const char *stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

static const char *stop(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(error, sizeof error, format, args);
	va_end(args);
	return error;
}

/* Returns false at the end. */
static bool get(int in, void *data, size_t size)
{
	for (char *at = data; size;) {
		ssize_t got = read(in, at, size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		at += got;
		size -= (size_t)got;
	}
	return true;
}

static uint64_t padding(uint64_t size)
{
	return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

static bool skip(int in, uint64_t size)
{
	char data[4096];
	for (uint64_t left = size + padding(size); left;) {
		size_t most = left < sizeof data ? (size_t)left : sizeof data;
		if (!get(in, data, most))
			return false;
		left -= most;
	}
	return true;
}

/* Octal digits, or GNU's binary number. Returns false if the field is not a number, or too large. */
static bool number(const char *field, size_t size, uint64_t *value)
{
	size_t i = 0;
	*value = 0;
	if (field[0] & 0x80) {
		for (i = 0; i < size; i++) {
			if (*value >> 48)
				return false;
			*value = *value << 8 | ((uint8_t)field[i] & (i ? 0xff : 0x7f));
		}
		return true;
	}
	while (i < size && field[i] == ' ')
		i++;
	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		*value = *value << 3 | (uint64_t)(field[i] - '0');
	return i == size || !field[i] || field[i] == ' ';
}

/* --- names --------------------------------------------------------------------------------------------------------- */

/*
 * Opens the directory that a name is in, and returns it; *base: the last component, "": the root itself. Directories that are
 * missing are made. Returns -1 with errno set; EPERM: the name is none that an archive may have.
 */
static int open_parent(int root, char *name, const char **base)
{
	int directory = dup(root);
	char *at = name;
	*base = "";
	if (*name == '/')
		goto refused;
	while (directory >= 0) {
		char *end = strchrnul(at, '/');
		bool last = !*end || !end[strspn(end, "/")];
		char *next = end + strspn(end, "/");
		*end = '\0';
		if (!strcmp(at, ".."))
			goto refused;
		if (last) {
			*base = strcmp(at, ".") ? at : "";
			return directory;
		}
		if (*at && strcmp(at, ".")) {
			if (mkdirat(directory, at, 0755) < 0 && errno != EEXIST)
				break;
			int inner = openat(directory, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (inner < 0)
				break;
			close(directory);
			directory = inner;
		}
		at = next;
	}
	if (directory >= 0) {
		int reason = errno;
		close(directory);
		errno = reason;
	}
	return -1;
refused:
	if (directory >= 0)
		close(directory);
	errno = EPERM;
	return -1;
}

/* Removes what has this name, but no directory. */
static bool clear(int directory, const char *base)
{
	return !unlinkat(directory, base, 0) || errno == ENOENT;
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

static const char *read_file(const struct reader *r, int directory, const char *base, mode_t mode, uint64_t size)
{
	static char data[1 << 16];
	int fd = clear(directory, base)
			 ? openat(directory, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777)
			 : -1;
	if (fd < 0)
		return stop("cannot create %s: %s", base, strerror(errno));
	for (uint64_t left = size; left;) {
		size_t most = left < sizeof data ? (size_t)left : sizeof data;
		if (!get(r->in, data, most)) {
			close(fd);
			return stop("the archive ends in the middle of %s", base);
		}
		for (size_t at = 0; at < most;) {
			ssize_t written = write(fd, data + at, most - at);
			if (written < 0) {
				const char *why = stop("cannot write %s: %s", base, strerror(errno));
				close(fd);
				return why;
			}
			at += (size_t)written;
		}
		left -= most;
	}
	if (close(fd) < 0)
		return stop("cannot write %s: %s", base, strerror(errno));
	return get(r->in, data, (size_t)padding(size)) ? NULL : TAR_CUT;
}

/* A further name for a file of this archive. */
static bool link_file(const struct reader *r, int directory, const char *base, char *target)
{
	const char *old;
	int from = open_parent(r->root, target, &old);
	struct stat st;
	bool good = from >= 0 && *old && !fstatat(from, old, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
		    clear(directory, base) && !linkat(from, old, directory, base, 0);
	int reason = errno;
	if (from >= 0)
		close(from);
	errno = reason;
	return good;
}

static const char *read_entry(struct reader *r, const struct tar_header *h, uint64_t size, char *name, char *target)
{
	char shown[TAR_NAME_MAX + 1];
	const char *base, *why = NULL;
	uint64_t mode;
	bool good = true;
	memcpy(shown, name, sizeof shown);
	if (!number(h->mode, sizeof h->mode, &mode))
		return "the archive has a mode that is not a number";
	int directory = open_parent(r->root, name, &base);
	if (directory < 0)
		return errno == EPERM ? stop("refused the name %s, which leads out of the directory", shown)
				      : stop("cannot create %s: %s", shown, strerror(errno));
	switch (h->type) {
	case '\0':
	case '0':
		why = *base ? read_file(r, directory, base, (mode_t)mode, size) : "the archive has a file without a name";
		size = 0;
		break;
	case '1':
		good = *base && link_file(r, directory, base, target);
		break;
	case '2':
		good = *base && *target && clear(directory, base) && !symlinkat(target, directory, base);
		break;
	case '5':
		good = !*base || !mkdirat(directory, base, (mode & 0777) | 0700) || errno == EEXIST;
		break;
	}
	if (!good)
		why = stop("cannot create %s: %s", shown, strerror(errno));
	close(directory);
	if (!why && !skip(r->in, size))
		why = TAR_CUT;
	return why;
}

/* Reads GNU's long name or target. */
static bool read_long(struct reader *r, char *text, uint64_t size)
{
	char rest[TAR_BLOCK];
	if (!size || size > TAR_NAME_MAX + 1 || !get(r->in, text, (size_t)size) || !get(r->in, rest, (size_t)padding(size)))
		return false;
	text[size - 1] = '\0';
	return true;
}

static void take_name(const struct tar_header *h, char *name)
{
	size_t at = 0;
	if (!memcmp(h->magic, "ustar\0", 6) && h->prefix[0]) {
		at = strnlen(h->prefix, sizeof h->prefix);
		memcpy(name, h->prefix, at);
		name[at++] = '/';
	}
	size_t length = strnlen(h->name, sizeof h->name);
	memcpy(name + at, h->name, length);
	name[at + length] = '\0';
}

const char *tar_read(int in, int directory)
{
	static struct reader r;
	static struct tar_header h;
	uint64_t sum, size;
	r = (struct reader){.in = in, .root = directory};
	for (;;) {
		if (!get(in, &h, sizeof h))
			return TAR_CUT;
		if (!h.name[0] && !h.sum[0])
			break; /* zeros end it */
		if (!number(h.sum, sizeof h.sum, &sum) || sum != tar_sum(&h) || !number(h.size, sizeof h.size, &size))
			return "what the guest sent is no archive";
		if (h.type == 'L' || h.type == 'K') {
			if (!read_long(&r, h.type == 'L' ? r.name : r.target, size))
				return "the archive has a name that is too long";
			continue;
		}
		if (h.type == 'x' || h.type == 'g' || h.type == 'S')
			return "the guest's tar writes a format that nabla does not read";
		if (!r.name[0])
			take_name(&h, r.name);
		if (!r.target[0])
			memcpy(r.target, h.target, strnlen(h.target, sizeof h.target));
		const char *why = read_entry(&r, &h, h.type >= '1' && h.type <= '6' ? 0 : size, r.name, r.target);
		if (why)
			return why;
		memset(r.name, 0, sizeof r.name);
		memset(r.target, 0, sizeof r.target);
	}
	/* the sender must not fail because nobody reads */
	while (read(in, &h, sizeof h) > 0)
		;
	return NULL;
}
