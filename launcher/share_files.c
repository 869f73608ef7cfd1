// SPDX-License-Identifier: Apache-2.0
// Operations on the contents and attributes of files.
#include "share_server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define READ_HEADER (WIRE_HEADER + 4)
#define GETATTR_BASIC 0x7ffu
#define V9FS_MAGIC 0x01021997u
#define NS_MAX 999999999u
#define LOCK_SUCCESS 0
#define LOCK_TYPE_UNLOCKED 2
/* Owners are not shown, so the set-ID bits are not either. */
#define MODES_SHOWN (S_IFMT | 01777u)
#define MODES_SET 01777u

enum {
	SET_MODE = 0x1, SET_SIZE = 0x8, SET_ATIME = 0x10, SET_MTIME = 0x20, SET_ATIME_TO = 0x80, SET_MTIME_TO = 0x100,
};

static bool open_fid(struct share_server *s, struct fid *fid, uint32_t flags, struct wire *out)
{
	struct stat st;
	if (fid->io >= 0 || (flags & SHARE_ACCESS) == SHARE_ACCESS) {
		errno = EINVAL;
		return false;
	}
	bool writes = flags & (SHARE_ACCESS | O_TRUNC);
	if (writes && share_refuses_writes(s))
		return false;
	int io = node_open(&s->nodes, fid->node, share_open_flags(flags));
	if (io < 0 || !fid_open(&s->nodes, fid, io, flags & SHARE_ACCESS) || fstat(io, &st) < 0)
		return false;
	share_put_qid(s, out, &st);
	put32(out, 0);
	return true;
}

bool share_open(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	uint32_t flags = get32(in);
	return !in->bad && fid && open_fid(s, fid, flags, out);
}

/* Another fid for the same file, opened. */
bool share_reopen(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	uint32_t id = get32(in), flags = get32(in);
	if (in->bad || !fid)
		return false;
	if (fid_find(&s->nodes, id)) {
		errno = EBADF;
		return false;
	}
	fid = fid_add(&s->nodes, id, node_reference(fid->node));
	if (!fid)
		return false;
	if (open_fid(s, fid, flags, out))
		return true;
	int error = errno;
	fid_remove(&s->nodes, fid);
	errno = error;
	return false;
}

bool share_examine(struct share_server *s, struct fid *fid, struct stat *st)
{
	return fid->io >= 0 ? !fstat(fid->io, st) : node_stat(&s->nodes, fid->node, st);
}

static void put_time(struct wire *out, const struct timespec *time)
{
	put64(out, (uint64_t)time->tv_sec);
	put64(out, (uint64_t)time->tv_nsec);
}

void share_put_attributes(const struct share_server *s, struct wire *out, const struct stat *st)
{
	put64(out, GETATTR_BASIC);
	share_put_qid(s, out, st);
	put32(out, st->st_mode & MODES_SHOWN);
	put32(out, 0); /* root of the guest */
	put32(out, 0);
	put64(out, st->st_nlink);
	put64(out, 0); /* no device of the host */
	put64(out, (uint64_t)st->st_size);
	put64(out, (uint64_t)st->st_blksize);
	put64(out, (uint64_t)st->st_blocks);
	put_time(out, &st->st_atim);
	put_time(out, &st->st_mtim);
	put_time(out, &st->st_ctim);
	for (int i = 0; i < 4; i++)
		put64(out, 0); /* birth, generation, version */
}

bool share_getattr(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	struct stat st;
	get64(in); /* the requested attributes: returning more is not an error */
	if (in->bad || !fid || !share_examine(s, fid, &st))
		return false;
	share_put_attributes(s, out, &st);
	return true;
}

static int chmod_by_proc(int proc, const char *name, void *data)
{
	return fchmodat(proc, name, *(mode_t *)data, 0);
}

static bool set_size(struct share_server *s, struct fid *fid, uint64_t size)
{
	if (size > INT64_MAX) {
		errno = EFBIG;
		return false;
	}
	if (fid->io >= 0 && fid->writable)
		return !ftruncate(fid->io, (off_t)size);
	int io = node_open(&s->nodes, fid->node, O_WRONLY);
	if (io < 0)
		return false;
	bool good = !ftruncate(io, (off_t)size);
	int error = errno;
	close(io);
	errno = error;
	return good;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t to, uint64_t seconds, uint64_t ns)
{
	if (!(valid & set))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (!(valid & to))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){(time_t)seconds, (long)ns};
}

static bool set_times(struct share_server *s, struct fid *fid, const struct timespec times[2])
{
	if (fid->io >= 0)
		return !futimens(fid->io, times);
	struct stat st;
	int directory = fid->node->parent && node_stat(&s->nodes, fid->node, &st) ? node_parent(&s->nodes, fid->node) : -1;
	if (fid->node->parent && directory < 0)
		return false;
	if (directory >= 0)
		return !utimensat(directory, fid->node->name, times, AT_SYMLINK_NOFOLLOW);
	int io = node_open(&s->nodes, fid->node, O_RDONLY);
	if (io < 0)
		return false;
	bool good = !futimens(io, times);
	int error = errno;
	close(io);
	errno = error;
	return good;
}

/* Owners cannot be set: all files belong to root of the guest. */
bool share_setattr(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	uint32_t valid = get32(in);
	mode_t mode = get32(in) & MODES_SET;
	uint64_t owner = get64(in), size = get64(in);
	uint64_t atime = get64(in), atime_ns = get64(in), mtime = get64(in), mtime_ns = get64(in);
	(void)out, (void)owner;
	if (in->bad || !fid || share_refuses_writes(s))
		return false;
	if (atime_ns > NS_MAX || mtime_ns > NS_MAX) {
		errno = EINVAL;
		return false;
	}
	const struct timespec times[2] = {time_of(valid, SET_ATIME, SET_ATIME_TO, atime, atime_ns),
					  time_of(valid, SET_MTIME, SET_MTIME_TO, mtime, mtime_ns)};
	if (valid & SET_MODE && (fid->io >= 0 ? fchmod(fid->io, mode)
					      : node_by_proc(&s->nodes, fid->node, chmod_by_proc, &mode)) < 0)
		return false;
	if (valid & SET_SIZE && !set_size(s, fid, size))
		return false;
	if (!(valid & (SET_ATIME | SET_MTIME)) || set_times(s, fid, times))
		return true;
	/* Write permission for another user's file permits setting both of its times to now, but not only one of them. */
	const struct timespec both_now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
	return errno == EPERM && !(valid & (SET_ATIME_TO | SET_MTIME_TO)) && set_times(s, fid, both_now);
}

/* The layout of the host's kernel, see getdents64(2). */
struct entry {
	uint64_t number;
	int64_t next;
	uint16_t size;
	uint8_t type;
	char name[];
};
#define ENTRY_NAME offsetof(struct entry, name)
#define WIRE_ENTRY (13 + 8 + 1 + 2) /* qid, offset, type, length */

/* Writes entries that fit; returns false at the first that does not. */
static bool put_entries(struct wire *out, uint32_t end, const uint8_t *entries, size_t size, uint64_t mask, off_t *at)
{
	for (size_t i = 0; i < size;) {
		struct entry entry;
		const char *name = (const char *)entries + i + ENTRY_NAME;
		memcpy(&entry, entries + i, ENTRY_NAME);
		size_t length = strlen(name);
		if (end - out->at < WIRE_ENTRY + length)
			return false;
		put8(out, entry.type == DT_DIR ? 0x80 : entry.type == DT_LNK ? 0x02 : 0);
		put32(out, 0);
		put64(out, entry.number ^ mask);
		put64(out, (uint64_t)entry.next);
		put8(out, entry.type);
		put_text(out, name, length);
		*at = entry.next;
		i += entry.size;
	}
	return true;
}

bool share_readdir(struct share_server *s, struct wire *in, struct wire *out)
{
	static uint8_t entries[32768];
	struct fid *fid = share_fid(s, in);
	uint64_t offset = get64(in);
	uint32_t count = get32(in), place = out->at;
	if (in->bad || !fid)
		return false;
	if (fid->io < 0 || fid->node->type != S_IFDIR) {
		errno = fid->io < 0 ? EBADF : ENOTDIR;
		return false;
	}
	if (offset > INT64_MAX || ((off_t)offset != fid->at && lseek(fid->io, (off_t)offset, SEEK_SET) < 0))
		return false;
	off_t at = fid->at = (off_t)offset;
	uint64_t mask = share_number_mask(s, fid->node->dev);
	uint32_t most = s->msize - READ_HEADER;
	uint32_t end = place + 4 + (count < most ? count : most);
	put32(out, 0);
	for (;;) {
		long got = syscall(SYS_getdents64, fid->io, entries, sizeof entries);
		if (got < 0)
			return false;
		bool all = put_entries(out, end, entries, (size_t)got, mask, &at);
		if (got && all)
			continue;
		/* The host's position is behind the entries that were read; the guest may not have received them. */
		if (!all && lseek(fid->io, at, SEEK_SET) < 0)
			return false;
		break;
	}
	fid->at = at;
	patch32(out, place, out->at - place - 4);
	return true;
}

bool share_fsync(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	(void)out;
	if (!fid)
		return false;
	/* A read-only share has nothing to write, and some file systems cannot sync. */
	return fid->io < 0 || s->read_only || !fsync(fid->io) || errno == EINVAL || errno == EROFS;
}

bool share_read(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	uint64_t offset = get64(in);
	uint32_t count = get32(in), most = s->msize - READ_HEADER, place = out->at;
	if (in->bad || !fid)
		return false;
	if (fid->io < 0 || offset > INT64_MAX) {
		errno = fid->io < 0 ? EBADF : EINVAL;
		return false;
	}
	put32(out, 0);
	ssize_t got = pread(fid->io, out->bytes + out->at, count < most ? count : most, (off_t)offset);
	if (got < 0)
		return false;
	out->at += (uint32_t)got;
	patch32(out, place, (uint32_t)got);
	return true;
}

bool share_write(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	uint64_t offset = get64(in);
	uint32_t count = get32(in);
	if (count > in->end - in->at)
		in->bad = true;
	if (in->bad || !fid)
		return false;
	if (fid->io < 0 || !fid->writable || offset > INT64_MAX) {
		errno = offset > INT64_MAX ? EFBIG : EBADF;
		return false;
	}
	ssize_t written = pwrite(fid->io, in->bytes + in->at, count, (off_t)offset);
	if (written < 0)
		return false;
	put32(out, (uint32_t)written);
	return true;
}

bool share_statfs(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	struct statfs fs;
	if (!fid)
		return false;
	struct node *node = fid->node;
	int fd = fid->io >= 0		     ? fid->io
		 : node->type == S_IFDIR ? node_directory(&s->nodes, node)
					     : node_parent(&s->nodes, node);
	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return false;
	put32(out, V9FS_MAGIC);
	put32(out, (uint32_t)fs.f_bsize);
	put64(out, fs.f_blocks);
	put64(out, fs.f_bfree);
	put64(out, fs.f_bavail);
	put64(out, fs.f_files);
	put64(out, fs.f_ffree);
	put64(out, 0);
	put32(out, WIRE_NAME_MAX);
	return true;
}

/* The guest's kernel arbitrates between its programs; it does not see locks of the host's programs. */
bool share_lock(struct share_server *s, struct wire *in, struct wire *out)
{
	if (!share_fid(s, in))
		return false;
	put8(out, LOCK_SUCCESS);
	return true;
}

bool share_getlock(struct share_server *s, struct wire *in, struct wire *out)
{
	char client[WIRE_TEXT_MAX + 1];
	struct fid *fid = share_fid(s, in);
	get8(in);
	uint64_t start = get64(in), length = get64(in);
	uint32_t process = get32(in);
	if (!fid || !get_text(in, client))
		return false;
	put8(out, LOCK_TYPE_UNLOCKED);
	put64(out, start);
	put64(out, length);
	put32(out, process);
	put_text(out, client, strlen(client));
	return true;
}
