// SPDX-License-Identifier: Apache-2.0
#include "share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define VERSION "9P2000.L"
#define DIALECT VERSION ".nabla"
#define MSIZE_MIN 4096

enum {
	TLERROR = 6, TSTATFS = 8, TLOPEN = 12, TLCREATE = 14, TSYMLINK = 16, TMKNOD = 18, TREADLINK = 22, TGETATTR = 24,
	TSETATTR = 26, TREADDIR = 40, TFSYNC = 50, TLOCK = 52, TGETLOCK = 54, TLOOK = 56, TFORGET = 58, TREOPEN = 60,
	TMAKE = 62, TLINK = 70, TMKDIR = 72, TRENAMEAT = 74, TUNLINKAT = 76, TVERSION = 100, TATTACH = 104, TFLUSH = 108,
	TWALK = 110, TREAD = 116, TWRITE = 118, TCLUNK = 120, TREMOVE = 122,
};

struct fid *share_fid(struct share_server *s, struct wire *in)
{
	uint32_t id = get32(in);
	struct fid *fid = in->bad ? NULL : fid_find(&s->nodes, id);
	if (!fid)
		errno = EBADF;
	return fid;
}

uint64_t share_number_mask(const struct share_server *s, dev_t device)
{
	return (uint64_t)(device ^ s->nodes.root->dev) * UINT64_C(0x9e3779b97f4a7c15);
}

void share_put_qid(const struct share_server *s, struct wire *out, const struct stat *st)
{
	put8(out, S_ISDIR(st->st_mode) ? 0x80 : S_ISLNK(st->st_mode) ? 0x02 : 0);
	put32(out, (uint32_t)(st->st_mtim.tv_sec ^ st->st_mtim.tv_nsec ^ st->st_size));
	put64(out, st->st_ino ^ share_number_mask(s, st->st_dev));
}

bool share_refuses_writes(const struct share_server *s)
{
	if (s->read_only)
		errno = EROFS;
	return s->read_only;
}

int share_open_flags(uint32_t flags)
{
	return (int)flags & ((int)SHARE_ACCESS | O_TRUNC | O_APPEND | O_DIRECTORY | O_SYNC | O_DSYNC);
}

static bool say_hello(struct share_server *s, struct wire *in, struct wire *out)
{
	char version[WIRE_TEXT_MAX + 1];
	uint32_t msize = get32(in);
	if (!get_text(in, version))
		return false;
	fid_remove_all(&s->nodes);
	s->msize = msize < SHARE_MSIZE ? msize : SHARE_MSIZE;
	s->dialect = !strcmp(version, DIALECT);
	const char *answer = s->dialect ? DIALECT : VERSION;
	if (msize < MSIZE_MIN || strcmp(version, answer) != 0) {
		s->msize = 0;
		answer = "unknown";
	}
	put32(out, s->msize ? s->msize : msize);
	put_text(out, answer, strlen(answer));
	return true;
}

/* The request has already been answered, as messages are served in order. */
static bool flush(struct share_server *s, struct wire *in, struct wire *out)
{
	(void)s, (void)in, (void)out;
	return true;
}

static share_operation *operation_of(const struct share_server *s, uint8_t type)
{
	switch (type) {
	case TLOOK: return s->dialect ? share_look : NULL;
	case TFORGET: return s->dialect ? share_forget : NULL;
	case TREOPEN: return s->dialect ? share_reopen : NULL;
	case TMAKE: return s->dialect ? share_make : NULL;
	case TVERSION: return say_hello;
	case TFLUSH: return flush;
	case TATTACH: return share_attach;
	case TWALK: return share_walk;
	case TCLUNK: return share_clunk;
	case TREMOVE: return share_remove;
	case TLOPEN: return share_open;
	case TLCREATE: return share_create;
	case TSYMLINK: return share_symlink;
	case TMKNOD: return share_mknod;
	case TREADLINK: return share_readlink;
	case TGETATTR: return share_getattr;
	case TSETATTR: return share_setattr;
	case TREADDIR: return share_readdir;
	case TFSYNC: return share_fsync;
	case TLOCK: return share_lock;
	case TGETLOCK: return share_getlock;
	case TLINK: return share_link;
	case TMKDIR: return share_mkdir;
	case TRENAMEAT: return share_rename;
	case TUNLINKAT: return share_unlink;
	case TREAD: return share_read;
	case TWRITE: return share_write;
	case TSTATFS: return share_statfs;
	default: return NULL;
	}
}

uint32_t share_message_size(const struct share_server *s, const uint8_t *bytes)
{
	uint32_t size = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
	return size < WIRE_HEADER || size > (s->msize ? s->msize : MSIZE_MIN) ? 0 : size;
}

bool share_serve(struct share_server *s, uint8_t *message, uint32_t size, uint8_t *answer, uint32_t *length)
{
	struct wire in = {message, WIRE_HEADER, share_message_size(s, message), false};
	struct wire out = {answer, WIRE_HEADER, s->msize ? s->msize : MSIZE_MIN, false};
	uint8_t type = message[4];
	share_operation *operation = operation_of(s, type);
	*length = 0;
	if (!in.end || in.end > size || (!s->msize && type != TVERSION))
		return false;
	errno = EOPNOTSUPP;
	bool good = operation && operation(s, &in, &out);
	if (operation == share_forget)
		return good;
	int error = in.bad || out.bad ? EPROTO : errno;
	if (!good || in.bad || out.bad) {
		out.at = WIRE_HEADER;
		out.bad = false;
		type = TLERROR;
		put32(&out, (uint32_t)(error ? error : EIO));
	}
	patch32(&out, 0, out.at);
	answer[4] = type + 1;
	answer[5] = message[5];
	answer[6] = message[6];
	*length = out.at;
	return true;
}

static bool send_all(int socket, const uint8_t *bytes, uint32_t size)
{
	while (size) {
		ssize_t sent = write(socket, bytes, size);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		bytes += sent;
		size -= (uint32_t)sent;
	}
	return true;
}

bool share_loop(struct share_server *s, int socket)
{
	static uint8_t in[2 * SHARE_MSIZE], out[SHARE_MSIZE];
	uint32_t have = 0;
	for (;;) {
		ssize_t got = read(socket, in + have, sizeof in - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return true; /* even in the middle of a message: the VM may have been killed */
		have += (uint32_t)got;
		uint32_t from = 0;
		while (have - from >= WIRE_HEADER) {
			uint32_t size = share_message_size(s, in + from);
			if (!size)
				return false;
			if (have - from < size)
				break;
			uint32_t answer;
			if (!share_serve(s, in + from, size, out, &answer))
				return false;
			if (!send_all(socket, out, answer))
				return true;
			from += size;
		}
		have -= from;
		if (from && have)
			memmove(in, in + from, have);
	}
}
