/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves one directory to one guest by 9P2000.L, on one thread: it answers messages in the order of their arrival. The
 * guest is hostile. Other processes on the host may change the files at the same time.
 *
 * A guest that requests our dialect in its hello can use additional messages. Each saves round trips; all numbers are in
 * the format of 9P2000.L, which has no such messages:
 *
 *   TLOOK depth[2] fid[4] newfid[4] name[s]   walk and getattr in one; no name and newfid NOFID: getattr of fid itself
 *   RLOOK                                     as RGETATTR
 *   TFORGET fid[4]...                         clunk of each fid that exists; has no answer
 *   TREOPEN fid[4] newfid[4] flags[4]         walk of no name and lopen in one
 *   RREOPEN                                   as RLOPEN
 *   TMAKE fid[4] openfid[4] newfid[4] name[s] flags[4] mode[4] gid[4]
 *                                             walk of no name and lcreate by openfid, walk to the name by newfid, getattr
 *   RMAKE iounit[4] ...                       then as RGETATTR
 *
 * depth: the number of directories, last one first, that the guest assumes unchanged without asking. If the name of one of
 * them no longer leads to it, the answer is ESTALE, and the guest asks about each directory.
 */
#ifndef NABLA_SHARE_SERVER_H
#define NABLA_SHARE_SERVER_H

#include "share_nodes.h"
#include "share_wire.h"

#define SHARE_MSIZE (256 * 1024) /* the largest message */
#define SHARE_ACCESS 3u		 /* of open flags; O_ACCMODE of musl has O_PATH, too */

struct share_server {
	struct nodes nodes;
	bool read_only;
	uint32_t msize; /* negotiated; 0: before the guest's hello */
	bool dialect;
};

/*
 * Serves a message, whose size is in its header and is at most `size`. Writes the answer to answer[SHARE_MSIZE] and its
 * size to *length; 0: there is no answer. Returns false if the message is invalid: the connection ends.
 */
bool share_serve(struct share_server *server, uint8_t *message, uint32_t size, uint8_t *answer, uint32_t *length);

/* Returns the size of the message that begins at bytes[WIRE_HEADER]; 0 if it is too small or too large. */
uint32_t share_message_size(const struct share_server *server, const uint8_t *bytes);

/* Serves a connection until the other end closes it; returns false if a message was invalid. */
bool share_loop(struct share_server *server, int socket);

/*
 * Operations: read the rest of a message, and write the rest of the answer. They return false with errno set if the
 * operation failed; the caller checks whether the message was too short.
 */
typedef bool share_operation(struct share_server *s, struct wire *in, struct wire *out);

/* share_files.c */
share_operation share_open, share_reopen, share_getattr, share_setattr, share_readdir, share_fsync, share_read,
	share_write, share_statfs, share_lock, share_getlock;
/* share_names.c */
share_operation share_attach, share_walk, share_look, share_clunk, share_forget, share_remove, share_create, share_make,
	share_symlink, share_mknod, share_readlink, share_link, share_mkdir, share_rename, share_unlink;

/* Reads a fid; NULL with errno set if there is none. */
struct fid *share_fid(struct share_server *s, struct wire *in);

/* Inode numbers of other file systems within the share are XORed with this value, to keep them unique. */
uint64_t share_number_mask(const struct share_server *s, dev_t device);

/* The 13 bytes that identify a file. */
void share_put_qid(const struct share_server *s, struct wire *out, const struct stat *st);

/* Examines the open file, or the file that has the name. */
bool share_examine(struct share_server *s, struct fid *fid, struct stat *st);

/* The answer to getattr. */
void share_put_attributes(const struct share_server *s, struct wire *out, const struct stat *st);

/* True if the share is read-only; sets errno. */
bool share_refuses_writes(const struct share_server *s);

/* The guest's open(2) flags that have an effect on the host. */
int share_open_flags(uint32_t flags);

#endif
