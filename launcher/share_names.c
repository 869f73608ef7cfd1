// SPDX-License-Identifier: Apache-2.0
// Operations on the names of files. Each is one host call with one or two pairs of a directory descriptor and a name.
#include "share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WALK_MAX 16
#define NOFID UINT32_MAX
#define MODES 01777u
#define UNLINK_DIRECTORY 0x200u /* AT_REMOVEDIR */

bool share_attach(struct share_server *s, struct wire *in, struct wire *out)
{
	char text[WIRE_TEXT_MAX + 1];
	uint32_t id = get32(in);
	struct stat st;
	get32(in); /* no authentication */
	if (!get_text(in, text) || !get_text(in, text))
		return false;
	get32(in); /* the user is the same for all */
	if (in->bad)
		return false;
	if (fid_find(&s->nodes, id)) {
		errno = EBADF;
		return false;
	}
	if (!node_stat(&s->nodes, s->nodes.root, &st) || !fid_add(&s->nodes, id, node_reference(s->nodes.root)))
		return false;
	share_put_qid(s, out, &st);
	return true;
}

/* Moves the fid to another node, and takes over the caller's reference to that node. */
static void set_node(struct share_server *s, struct fid *fid, struct node *node)
{
	node_release(&s->nodes, fid->node);
	fid->node = node;
}

bool share_walk(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct fid *fid = share_fid(s, in);
	uint32_t id = get32(in), place = out->at;
	uint16_t count = get16(in), done = 0;
	struct stat st;
	if (in->bad || !fid)
		return false;
	bool same = id == fid->id;
	if (count > WALK_MAX || (same ? fid->io >= 0 : fid_find(&s->nodes, id) != NULL)) {
		errno = EBADF;
		return false;
	}
	struct node *node = node_reference(fid->node);
	put16(out, 0);
	for (; done < count; done++) {
		struct node *next = get_name(in, name) ? node_walk(&s->nodes, node, name, &st) : NULL;
		if (!next)
			break;
		share_put_qid(s, out, &st);
		node_release(&s->nodes, node);
		node = next;
	}
	if (in->bad || done < count) {
		int error = errno;
		node_release(&s->nodes, node);
		out->at = place + 2 + done * 13u;
		patch16(out, place, done);
		errno = error;
		return done && !in->bad;
	}
	patch16(out, place, done);
	if (same) {
		set_node(s, fid, node);
		return true;
	}
	return fid_add(&s->nodes, id, node);
}

bool share_look(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	uint16_t depth = get16(in);
	struct fid *fid = share_fid(s, in);
	uint32_t id = get32(in);
	struct stat st;
	if (in->bad || !fid)
		return false;
	if (id == NOFID) {
		if (get16(in) || in->bad) {
			errno = EINVAL;
			return false;
		}
		if (!node_is_there(&s->nodes, fid->node->parent, depth))
			return false;
		if (!share_examine(s, fid, &st)) {
			/* ESTALE is reserved for the directories, and makes the guest start over. */
			if (errno == ESTALE)
				errno = ENOENT;
			return false;
		}
		share_put_attributes(s, out, &st);
		return true;
	}
	if (!get_name(in, name))
		return false;
	if (fid_find(&s->nodes, id)) {
		errno = EBADF;
		return false;
	}
	if (!node_is_there(&s->nodes, fid->node, depth))
		return false;
	struct node *node = node_walk(&s->nodes, fid->node, name, &st);
	if (!node || !fid_add(&s->nodes, id, node))
		return false;
	share_put_attributes(s, out, &st);
	return true;
}

bool share_clunk(struct share_server *s, struct wire *in, struct wire *out)
{
	struct fid *fid = share_fid(s, in);
	(void)out;
	if (!fid)
		return false;
	fid_remove(&s->nodes, fid);
	return true;
}

/* The request has no answer that could report an error. */
bool share_forget(struct share_server *s, struct wire *in, struct wire *out)
{
	(void)out;
	while (in->at < in->end && !in->bad) {
		struct fid *fid = share_fid(s, in);
		if (fid)
			fid_remove(&s->nodes, fid);
	}
	return !in->bad;
}

/* Linux removes files by name. The fid is gone in any case. */
bool share_remove(struct share_server *s, struct wire *in, struct wire *out)
{
	if (share_clunk(s, in, out))
		errno = EOPNOTSUPP;
	return false;
}

/* Reads a fid and a name; returns the descriptor of the directory, or -1. */
static int read_place(struct share_server *s, struct wire *in, struct node **node, char *name)
{
	struct fid *fid = share_fid(s, in);
	if (!fid || !get_name(in, name))
		return -1;
	*node = fid->node;
	return node_directory(&s->nodes, fid->node);
}

/* The qid of a name that was just created. */
static bool put_made(struct share_server *s, struct wire *out, int directory, const char *name)
{
	struct stat st;
	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	share_put_qid(s, out, &st);
	return true;
}

/* Creates a file in the directory of the fid, and moves the fid to the open file. */
static bool create_file(struct share_server *s, struct fid *fid, const char *name, uint32_t flags, uint32_t mode,
			struct stat *st)
{
	if (share_refuses_writes(s))
		return false;
	if (fid->io >= 0 || (flags & SHARE_ACCESS) == SHARE_ACCESS) {
		errno = EINVAL;
		return false;
	}
	int directory = node_directory(&s->nodes, fid->node);
	if (directory < 0)
		return false;
	int open_flags = share_open_flags(flags) & ~O_DIRECTORY;
	int io = openat(directory, name, open_flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
			mode & MODES);
	bool made = io >= 0;
	/* A process on the host was faster. */
	if (!made && (errno != EEXIST || flags & O_EXCL))
		return false;
	struct node *node = node_walk(&s->nodes, fid->node, name, st);
	if (node && !made)
		io = node_open(&s->nodes, node, open_flags);
	if (!node || io < 0 || fstat(io, st) < 0) {
		int error = errno;
		if (io >= 0)
			close(io);
		node_release(&s->nodes, node);
		errno = error;
		return false;
	}
	set_node(s, fid, node);
	return fid_open(&s->nodes, fid, io, flags & SHARE_ACCESS);
}

bool share_create(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct fid *fid = share_fid(s, in);
	struct stat st;
	if (!fid || !get_name(in, name))
		return false;
	uint32_t flags = get32(in), mode = get32(in);
	if (in->bad || !create_file(s, fid, name, flags, mode, &st))
		return false;
	share_put_qid(s, out, &st);
	put32(out, 0);
	return true;
}

bool share_make(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct fid *directory = share_fid(s, in);
	uint32_t open_id = get32(in), id = get32(in);
	struct stat st;
	if (!directory || !get_name(in, name))
		return false;
	uint32_t flags = get32(in), mode = get32(in);
	get32(in); /* the group is the same for all */
	if (in->bad)
		return false;
	if (open_id == id || fid_find(&s->nodes, open_id) || fid_find(&s->nodes, id)) {
		errno = EBADF;
		return false;
	}
	struct fid *fid = fid_add(&s->nodes, open_id, node_reference(directory->node));
	if (!fid)
		return false;
	if (!create_file(s, fid, name, flags, mode, &st) || !fid_add(&s->nodes, id, node_reference(fid->node))) {
		int error = errno;
		fid_remove(&s->nodes, fid);
		errno = error;
		return false;
	}
	put32(out, 0);
	share_put_attributes(s, out, &st);
	return true;
}

bool share_symlink(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1], target[WIRE_TEXT_MAX + 1];
	struct node *node;
	int directory = read_place(s, in, &node, name);
	if (directory < 0 || !get_text(in, target) || share_refuses_writes(s))
		return false;
	get32(in);
	return !in->bad && !symlinkat(target, directory, name) && put_made(s, out, directory, name);
}

bool share_mknod(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct node *node;
	int directory = read_place(s, in, &node, name);
	if (directory < 0)
		return false;
	uint32_t mode = get32(in);
	get32(in), get32(in), get32(in);
	if (in->bad || share_refuses_writes(s))
		return false;
	if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode)) {
		errno = EPERM;
		return false;
	}
	return !mknodat(directory, name, mode & (S_IFMT | MODES), 0) && put_made(s, out, directory, name);
}

bool share_readlink(struct share_server *s, struct wire *in, struct wire *out)
{
	char target[WIRE_TEXT_MAX + 1];
	struct fid *fid = share_fid(s, in);
	if (!fid)
		return false;
	struct stat st;
	if (!node_stat(&s->nodes, fid->node, &st))
		return false;
	int directory = node_parent(&s->nodes, fid->node);
	if (directory < 0)
		return false;
	ssize_t length = readlinkat(directory, fid->node->name, target, sizeof target);
	if (length < 0)
		return false;
	put_text(out, target, (size_t)length);
	return true;
}

/* Opening the second directory may evict the first from the cache of descriptors. */
static int keep_while(struct share_server *s, struct node *kept, struct node *needed)
{
	bool pinned = kept->pinned;
	kept->pinned = true;
	int fd = node_directory(&s->nodes, needed);
	kept->pinned = pinned;
	return fd;
}

bool share_link(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct fid *place = share_fid(s, in), *fid = share_fid(s, in);
	struct stat st;
	(void)out;
	if (!place || !fid || !get_name(in, name) || share_refuses_writes(s))
		return false;
	if (!fid->node->parent) {
		errno = fid->node == s->nodes.root ? EPERM : ESTALE;
		return false;
	}
	if (!node_stat(&s->nodes, fid->node, &st))
		return false;
	int from = node_directory(&s->nodes, fid->node->parent);
	int to = from < 0 ? -1 : keep_while(s, fid->node->parent, place->node);
	return to >= 0 && !linkat(from, fid->node->name, to, name, 0);
}

bool share_mkdir(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct node *node;
	int directory = read_place(s, in, &node, name);
	if (directory < 0)
		return false;
	uint32_t mode = get32(in);
	get32(in);
	if (in->bad || share_refuses_writes(s))
		return false;
	return !mkdirat(directory, name, mode & MODES) && put_made(s, out, directory, name);
}

bool share_rename(struct share_server *s, struct wire *in, struct wire *out)
{
	char old[WIRE_NAME_MAX + 1], new[WIRE_NAME_MAX + 1];
	struct node *from, *to;
	(void)out;
	int source = read_place(s, in, &from, old);
	if (source < 0)
		return false;
	struct fid *fid = share_fid(s, in);
	if (!fid || !get_name(in, new) || share_refuses_writes(s))
		return false;
	to = fid->node;
	int target = keep_while(s, from, to);
	if (target < 0 || renameat(source, old, target, new) < 0)
		return false;
	node_move(&s->nodes, from, old, to, new);
	return true;
}

bool share_unlink(struct share_server *s, struct wire *in, struct wire *out)
{
	char name[WIRE_NAME_MAX + 1];
	struct node *node;
	(void)out;
	int directory = read_place(s, in, &node, name);
	uint32_t flags = get32(in);
	if (in->bad || directory < 0 || share_refuses_writes(s))
		return false;
	if (unlinkat(directory, name, flags & UNLINK_DIRECTORY ? AT_REMOVEDIR : 0) < 0)
		return false;
	node_forget(&s->nodes, node, name);
	return true;
}
