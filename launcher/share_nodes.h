/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest knows of a shared directory: a tree of nodes, each a name in its parent and the identity of the file that had
 * this name when the guest looked. Nodes hold no descriptor, except some directories that were used last. Every access
 * begins at such a directory and opens one name after another, O_PATH | O_NOFOLLOW; what is not the same file as before is
 * ESTALE. Between this comparison and an operation on the name (times, links, removal, renaming), others may replace the
 * file: the operation then meets what has the name in this directory. No path, no `..` and no symbolic link is ever resolved.
 */
#ifndef NABLA_SHARE_NODES_H
#define NABLA_SHARE_NODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define NODE_BUCKETS 16384
#define FID_BUCKETS 4096
#define NODES_MAX 400000 /* some 60 MB; a guest caches as many entries only with gigabytes of memory */

struct node {
	struct node *parent; /* NULL: the root, or a file that lost its name */
	struct node *next;   /* in its bucket */
	struct node *older, *newer; /* those with a descriptor, in the order of their use */
	struct fid *opened;  /* by the guest, linked by next_opened */
	char *name;
	uint32_t references; /* fids and children */
	int fd;		     /* of a directory, O_PATH; -1: none */
	mode_t type;
	dev_t dev;
	ino_t ino;
	bool pinned; /* keeps its descriptor */
};

/* A number by which the guest names a node, and a file that it has opened. */
struct fid {
	struct fid *next, *next_opened;
	struct node *node;
	uint32_t id;
	int io;	      /* -1: not open */
	bool writable;
	off_t at; /* of a directory: where the next entry will be read */
};

struct nodes {
	struct node *root;
	struct node *oldest, *newest;
	size_t held, held_max;	   /* nodes with a descriptor */
	size_t opened, opened_max; /* fids with a descriptor */
	size_t count;		   /* nodes and fids */
	int proc;		   /* /proc/self/fd */
	struct node *buckets[NODE_BUCKETS];
	struct fid *fids[FID_BUCKETS];
};

/* root: O_PATH, becomes the tree's. Returns false with errno set. */
bool nodes_start(struct nodes *nodes, int root, int proc, size_t descriptors);

/* Looks up a name in a directory on the host and examines it. Returns a new reference, or NULL with errno set. */
struct node *node_walk(struct nodes *nodes, struct node *directory, const char *name, struct stat *st);

struct node *node_reference(struct node *node);
void node_release(struct nodes *nodes, struct node *node);

/*
 * Returns a descriptor of a directory, O_PATH, which stays the node's: it is valid until a descriptor of another node is
 * requested, or as long as node->pinned is set. -1 with errno set.
 */
int node_directory(struct nodes *nodes, struct node *node);

/* The directory that holds the node's name; of the root itself -1, EBUSY. */
int node_parent(struct nodes *nodes, struct node *node);

/*
 * False with ESTALE unless the names of this node and of its parents, `depth` in all or up to the root, still lead to them,
 * or there are too many for one request. NULL is a file that lost its name, or the parent of the root.
 */
bool node_is_there(struct nodes *nodes, struct node *node, unsigned depth);

/* Examines the file. ESTALE or ENOENT: the name leads to another now. A file without a name is examined if it is open. */
bool node_stat(struct nodes *nodes, struct node *node, struct stat *st);

/*
 * Opens the file itself by flags of open(2): only regular files and directories. Returns a descriptor for the caller, or -1
 * with errno set.
 */
int node_open(struct nodes *nodes, struct node *node, int flags);

/* Calls a function of the name in /proc/self/fd of an O_PATH descriptor of a regular file or directory. */
int node_by_proc(struct nodes *nodes, struct node *node, int (*call)(int proc, const char *name, void *data), void *data);

/* The name was removed from a directory, or is about to lead to another file. */
void node_forget(struct nodes *nodes, struct node *directory, const char *name);

/* The name was moved. */
void node_move(struct nodes *nodes, struct node *from, const char *old, struct node *to, const char *new);

/* Fids. fid_add() takes over a reference of the node, also when it fails. */
struct fid *fid_find(struct nodes *nodes, uint32_t id);
struct fid *fid_add(struct nodes *nodes, uint32_t id, struct node *node);
void fid_remove(struct nodes *nodes, struct fid *fid);
void fid_remove_all(struct nodes *nodes);
/* Takes over the descriptor, also when it fails because too many are open. */
bool fid_open(struct nodes *nodes, struct fid *fid, int io, bool writable);

#endif
