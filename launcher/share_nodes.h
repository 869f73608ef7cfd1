/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's view of a shared directory: a tree of nodes, each a name in its parent and the identity of the file that had
 * this name when the guest looked it up. Only the most recently used directories have a descriptor. Every access starts at
 * such a directory and opens one name after another, with O_PATH | O_NOFOLLOW; a file that is not the same as before is
 * ESTALE. Between this comparison and an operation on the name (times, links, removal, renaming), other processes may
 * replace the file: the operation then affects the file that has the name in this directory. No path, no `..` and no
 * symbolic link is ever resolved.
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
#define NODES_MAX 400000 /* some 60 MB; only a guest with gigabytes of memory caches as many entries */

struct node {
	struct node *parent; /* NULL: the root, or a file that lost its name */
	struct node *next;   /* in its bucket */
	struct node *older, *newer; /* nodes with a descriptor, in the order of their use */
	struct fid *opened;  /* by the guest, linked by next_opened */
	char *name;
	uint32_t references; /* fids and children */
	int fd;		     /* of a directory, O_PATH; -1: none */
	mode_t type;
	dev_t dev;
	ino_t ino;
	bool pinned; /* keeps its descriptor */
};

/* A number that the guest uses for a node, and for a file that it has opened. */
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
 * Returns an O_PATH descriptor of a directory, which the node keeps: it is valid until a descriptor of another node is
 * requested, or as long as node->pinned is set. Returns -1 with errno set on failure.
 */
int node_directory(struct nodes *nodes, struct node *node);

/* Returns the directory that contains the node's name; for the root, -1 with EBUSY. */
int node_parent(struct nodes *nodes, struct node *node);

/*
 * Returns false with ESTALE if a name of this node or of its parents, `depth` in all or up to the root, no longer leads to
 * it, or if there are too many for one request. NULL stands for a file that has lost its name, or for the root's parent.
 */
bool node_is_there(struct nodes *nodes, struct node *node, unsigned depth);

/* Examines the file. ESTALE or ENOENT: the name now leads to another file. An unlinked file is examined if it is open. */
bool node_stat(struct nodes *nodes, struct node *node, struct stat *st);

/*
 * Opens the file itself with flags of open(2), if it is a regular file or a directory. Returns a descriptor for the caller,
 * or -1 with errno set.
 */
int node_open(struct nodes *nodes, struct node *node, int flags);

/* Calls a function with the /proc/self/fd name of an O_PATH descriptor of a regular file or directory. */
int node_by_proc(struct nodes *nodes, struct node *node, int (*call)(int proc, const char *name, void *data), void *data);

/* The name has been removed from a directory, or is about to lead to another file. */
void node_forget(struct nodes *nodes, struct node *directory, const char *name);

/* The name has been moved. */
void node_move(struct nodes *nodes, struct node *from, const char *old, struct node *to, const char *new);

/* Fids. fid_add() takes over a reference of the node, also when it fails. */
struct fid *fid_find(struct nodes *nodes, uint32_t id);
struct fid *fid_add(struct nodes *nodes, uint32_t id, struct node *node);
void fid_remove(struct nodes *nodes, struct fid *fid);
void fid_remove_all(struct nodes *nodes);
/* Takes over the descriptor, also when it fails because too many are open. */
bool fid_open(struct nodes *nodes, struct fid *fid, int io, bool writable);

#endif
