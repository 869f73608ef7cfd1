// SPDX-License-Identifier: Apache-2.0
#include "share_nodes.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* The guest chooses the numbers: an ordinary pattern of them must not fill one bucket. */
static uint32_t bucket_of(uint32_t id)
{
	return (id * UINT32_C(0x9e3779b1) >> 16) % FID_BUCKETS;
}

struct fid *fid_find(struct nodes *all, uint32_t id)
{
	struct fid *fid = all->fids[bucket_of(id)];
	while (fid && fid->id != id)
		fid = fid->next;
	return fid;
}

struct fid *fid_add(struct nodes *all, uint32_t id, struct node *node)
{
	struct fid *fid = all->count < NODES_MAX ? malloc(sizeof *fid) : NULL;
	if (!fid) {
		node_release(all, node);
		errno = ENOMEM;
		return NULL;
	}
	*fid = (struct fid){.next = all->fids[bucket_of(id)], .node = node, .id = id, .io = -1};
	all->fids[bucket_of(id)] = fid;
	all->count++;
	return fid;
}

static void close_file(struct nodes *all, struct fid *fid)
{
	struct fid **at = &fid->node->opened;
	if (fid->io < 0)
		return;
	while (*at != fid)
		at = &(*at)->next_opened;
	*at = fid->next_opened;
	close(fid->io);
	all->opened--;
}

void fid_remove(struct nodes *all, struct fid *fid)
{
	struct fid **at = &all->fids[bucket_of(fid->id)];
	while (*at != fid)
		at = &(*at)->next;
	*at = fid->next;
	close_file(all, fid);
	node_release(all, fid->node);
	free(fid);
	all->count--;
}

void fid_remove_all(struct nodes *all)
{
	for (size_t i = 0; i < FID_BUCKETS; i++)
		while (all->fids[i])
			fid_remove(all, all->fids[i]);
}

bool fid_open(struct nodes *all, struct fid *fid, int io, bool writable)
{
	if (all->opened >= all->opened_max) {
		close(io);
		errno = ENFILE;
		return false;
	}
	fid->io = io;
	fid->writable = writable;
	fid->at = 0;
	fid->next_opened = fid->node->opened;
	fid->node->opened = fid;
	all->opened++;
	return true;
}
