/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of VMs: the files of --snapshot and --restore. */
#ifndef NABLA_SNAPSHOT_H
#define NABLA_SNAPSHOT_H

#include "image.h"
#include "options.h"

#include <stdbool.h>
#include <stdint.h>

/* The first page of the file is the header of the guest's kernel, the second belongs to the launcher. */
#define SNAPSHOT_PAGE 4096

struct snapshot {
	int saved;    /* where the VM writes its snapshot, FD_HIGH or above; -1: none */
	int restored; /* the snapshot that the VM starts from; -1: it boots */
	bool terminal; /* of the restored VM: its console is a terminal */
	bool network;  /* of the restored VM: it has an eth0 */
	int written[DISKS_MAX]; /* disks that the guest changes until the snapshot is complete; -1: others */
};

/* Opens and checks the snapshot of --restore, and sets the size of the VM's memory from it. Called before images are
 * opened. */
void snapshot_restore(struct options *options, struct snapshot *snapshot);

/* Refuses disks other than those of the restored snapshot. */
void snapshot_check_disks(const struct options *options, const struct disk_file *files,
			  const struct snapshot *snapshot);

/* Creates the file of --snapshot. */
void snapshot_create(const struct options *options, const struct disk_file *files, struct snapshot *snapshot);

/* Records in the file the state of the VM's disks after its end. */
void snapshot_finish(const struct options *options, const struct snapshot *snapshot);

/* Returns a sum of the first page; 0 if the guest has not completed the file, or the file is shorter than its header
 * says. */
uint64_t snapshot_sum(const unsigned char page[SNAPSHOT_PAGE], uint64_t size);

/* Returns a hash that detects changes, not attacks. */
uint64_t snapshot_hash(const unsigned char *bytes, size_t count);

/* Returns the maximum size of the file of --snapshot. */
uint64_t snapshot_size(const struct options *options, const struct disk_file *files);

#endif
