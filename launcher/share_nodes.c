// SPDX-License-Identifier: Apache-2.0
#include "share_nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DEPTH_MAX 4096
#define EXAMINED_MAX 64 /* directories in one request */
#define HELD_MIN 16 /* a request needs a few at once */
#define HELD_MAX 1024

/* --- descriptors of directories ---------------------------------------------------------------------------------- */

static void unlink_held(struct nodes *all, struct node *node)
{
	*(node->older ? &node->older->newer : &all->oldest) = node->newer;
	*(node->newer ? &node->newer->older : &all->newest) = node->older;
	node->older = node->newer = NULL;
}

static void link_newest(struct nodes *all, struct node *node)
{
	node->older = all->newest;
	*(all->newest ? &all->newest->newer : &all->oldest) = node;
	all->newest = node;
}

static void touch(struct nodes *all, struct node *node)
{
	if (all->newest == node)
		return;
	unlink_held(all, node);
	link_newest(all, node);
}

static void drop_descriptor(struct nodes *all, struct node *node)
{
	if (node->fd < 0)
		return;
	unlink_held(all, node);
	close(node->fd);
	node->fd = -1;
	all->held--;
}

static void hold(struct nodes *all, struct node *node, int fd)
{
	struct node *old = all->oldest;
	while (all->held >= all->held_max && old) {
		struct node *newer = old->newer;
		if (!old->pinned && old != all->newest)
			drop_descriptor(all, old);
		old = newer;
	}
	node->fd = fd;
	all->held++;
	link_newest(all, node);
}

static bool is_same(const struct node *node, const struct stat *st)
{
	return node->ino == st->st_ino && node->dev == st->st_dev && node->type == (st->st_mode & S_IFMT);
}

/* Opens a name in a directory if it still leads to the node's file. */
static int open_same(int directory, const struct node *node)
{
	struct stat st;
	int fd = openat(directory, node->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (!fstat(fd, &st) && is_same(node, &st))
		return fd;
	close(fd);
	errno = ESTALE;
	return -1;
}

int node_directory(struct nodes *all, struct node *node)
{
	static struct node *chain[DEPTH_MAX];
	struct node *at = node;
	size_t count = 0;
	if (node->type != S_IFDIR) {
		errno = ENOTDIR;
		return -1;
	}
	for (; at->fd < 0; at = at->parent) {
		if (!at->parent || count == DEPTH_MAX) {
			errno = at->parent ? ENAMETOOLONG : ESTALE;
			return -1;
		}
		chain[count++] = at;
	}
	touch(all, at);
	while (count) {
		struct node *next = chain[--count];
		int fd = open_same(at->fd, next);
		if (fd < 0)
			return -1;
		/* at is the newest, so it keeps its own */
		hold(all, next, fd);
		at = next;
	}
	return node->fd;
}

int node_parent(struct nodes *all, struct node *node)
{
	if (node->parent)
		return node_directory(all, node->parent);
	errno = node == all->root ? EBUSY : ESTALE;
	return -1;
}

/* --- the tree -------------------------------------------------------------------------------------------------------- */

static size_t bucket_of(const struct node *parent, const char *name)
{
	uint64_t sum = (uint64_t)(uintptr_t)parent * UINT64_C(0x9e3779b97f4a7c15);
	for (; *name; name++)
		sum = (sum ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return (sum ^ sum >> 32) % NODE_BUCKETS;
}

static struct node *find(struct nodes *all, const struct node *parent, const char *name)
{
	struct node *node = all->buckets[bucket_of(parent, name)];
	while (node && (node->parent != parent || strcmp(node->name, name)))
		node = node->next;
	return node;
}

static void insert(struct nodes *all, struct node *node)
{
	struct node **bucket = &all->buckets[bucket_of(node->parent, node->name)];
	node->next = *bucket;
	*bucket = node;
}

/* Removes the node from the tree, and returns the parent with its reference, which passes to the caller. */
static struct node *take_out(struct nodes *all, struct node *node)
{
	struct node *parent = node->parent;
	if (parent) {
		struct node **at = &all->buckets[bucket_of(parent, node->name)];
		while (*at != node)
			at = &(*at)->next;
		*at = node->next;
		node->parent = NULL;
	}
	return parent;
}

static struct node *create(struct nodes *all, struct node *parent, const char *name, const struct stat *st)
{
	struct node *node = all->count < NODES_MAX ? calloc(1, sizeof *node) : NULL;
	if (node)
		node->name = strdup(name);
	if (!node || !node->name) {
		free(node);
		errno = ENOMEM;
		return NULL;
	}
	node->references = 1;
	node->fd = -1;
	node->type = st->st_mode & S_IFMT;
	node->dev = st->st_dev;
	node->ino = st->st_ino;
	all->count++;
	if (parent) {
		node->parent = node_reference(parent);
		insert(all, node);
	}
	return node;
}

bool nodes_start(struct nodes *all, int root, int proc, size_t descriptors)
{
	struct stat st;
	*all = (struct nodes){.proc = proc, .held_max = descriptors / 4, .opened_max = descriptors / 2};
	if (all->held_max > HELD_MAX)
		all->held_max = HELD_MAX;
	if (all->held_max < HELD_MIN)
		all->held_max = HELD_MIN;
	if (fstat(root, &st) < 0)
		return false;
	all->root = create(all, NULL, "", &st);
	if (!all->root)
		return false;
	all->root->pinned = true;
	hold(all, all->root, root);
	return true;
}

struct node *node_reference(struct node *node)
{
	node->references++;
	return node;
}

void node_release(struct nodes *all, struct node *node)
{
	while (node && !--node->references) {
		struct node *parent = take_out(all, node);
		drop_descriptor(all, node);
		free(node->name);
		free(node);
		all->count--;
		node = parent;
	}
}

/* procfs has files that lead into this process itself, such as /proc/self/mem. */
static bool is_procfs(int directory, const char *name)
{
	struct statfs fs;
	int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	bool yes = fd < 0 || fstatfs(fd, &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC;
	if (fd >= 0)
		close(fd);
	return yes;
}

struct node *node_walk(struct nodes *all, struct node *directory, const char *name, struct stat *st)
{
	int fd = node_directory(all, directory);
	if (fd < 0 || fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return NULL;
	struct node *node = find(all, directory, name);
	if (node && is_same(node, st))
		return node_reference(node);
	if (st->st_dev != directory->dev && is_procfs(fd, name)) {
		errno = EACCES;
		return NULL;
	}
	node_forget(all, directory, name);
	return create(all, directory, name, st);
}

void node_forget(struct nodes *all, struct node *directory, const char *name)
{
	struct node *node = find(all, directory, name);
	if (node)
		node_release(all, take_out(all, node));
}

static bool is_within(const struct node *node, const struct node *ancestor)
{
	while (node && node != ancestor)
		node = node->parent;
	return node;
}

void node_move(struct nodes *all, struct node *from, const char *old, struct node *to, const char *new)
{
	struct node *node = find(all, from, old);
	if (from == to && !strcmp(old, new))
		return;
	node_forget(all, to, new);
	if (!node)
		return;
	/* Host processes may rearrange the directory at the same time; a node must never become its own ancestor. */
	char *name = is_within(to, node) ? NULL : strdup(new);
	struct node *parent = take_out(all, node);
	if (name) {
		free(node->name);
		node->name = name;
		node->parent = node_reference(to);
		insert(all, node);
	}
	node_release(all, parent);
}

bool node_is_there(struct nodes *all, struct node *node, unsigned depth)
{
	struct stat st;
	for (unsigned done = 0; done < depth && node && node != all->root; done++, node = node->parent) {
		int fd = done < EXAMINED_MAX ? node_parent(all, node) : -1;
		if (fd < 0 || fstatat(fd, node->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 || !is_same(node, &st)) {
			errno = ESTALE;
			return false;
		}
	}
	return true;
}

/* --- files ------------------------------------------------------------------------------------------------------------- */

bool node_stat(struct nodes *all, struct node *node, struct stat *st)
{
	if (!node->parent) {
		int fd = node->opened ? node->opened->io : node->fd;
		errno = ESTALE;
		return fd >= 0 && !fstat(fd, st);
	}
	int fd = node_directory(all, node->parent);
	if (fd < 0 || fstatat(fd, node->name, st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return false;
	if (is_same(node, st))
		return true;
	errno = ESTALE;
	return false;
}

int node_by_proc(struct nodes *all, struct node *node, int (*call)(int proc, const char *name, void *data), void *data)
{
	char name[16];
	int fd, own = -1;
	/* Opening anything else can have side effects, and the host would follow a link in /proc to a symbolic link. */
	if (node->type != S_IFREG && node->type != S_IFDIR) {
		errno = EPERM;
		return -1;
	}
	if (!node->parent && node->opened) {
		fd = node->opened->io;
	} else if (node->type == S_IFDIR) {
		fd = node_directory(all, node);
	} else {
		int directory = node_parent(all, node);
		fd = own = directory < 0 ? -1 : open_same(directory, node);
	}
	if (fd < 0)
		return -1;
	snprintf(name, sizeof name, "%d", fd);
	int result = call(all->proc, name, data), error = errno;
	if (own >= 0)
		close(own);
	errno = error;
	return result;
}

static int open_by_proc(int proc, const char *name, void *data)
{
	return openat(proc, name, *(int *)data | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

int node_open(struct nodes *all, struct node *node, int flags)
{
	return node_by_proc(all, node, open_by_proc, &flags);
}
