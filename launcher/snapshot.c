// SPDX-License-Identifier: Apache-2.0
// The guest's kernel writes and reads snapshots; see arch/um/nommu/snapshot.h of the kernel. Only the launcher knows the
// disks' files, and records them in the second page of the file. A snapshot is not trusted: it names no file to open, and
// its requests must match the command line.
#include "snapshot.h"

#include "descriptors.h"
#include "diag.h"
#include "open_path.h"
#include "parse.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES SNAPSHOT_PAGE
#define MAGIC UINT64_C(0x31706e73616c626e) /* "nblasnp1" */
#define FORMAT 2
#define FLAG_TERMINAL 1u
#define FLAG_NETWORK 2u
#define FLAG_CONTROL 8u
#define NOTES_MAGIC UINT64_C(0x31746f6e616c626e) /* "nblanot1" */

#define CHANGED_HINT "make a new snapshot; only --read-only, --ephemeral, ,ro and ,cow keep a disk as it is"

enum kind { KIND_NONE, KIND_WRITABLE, KIND_READ_ONLY, KIND_COW };

/* The beginning of struct um_snapshot of the kernel, and its end. */
struct header {
	uint64_t magic;
	uint32_t format;
	uint32_t flags;
	uint8_t build_id[32];
	uint64_t memory;
	uint64_t size;
	uint64_t rest[19];
	struct {
		uint64_t size;
		uint32_t kind;
		int32_t fd;
	} disks[DISKS_MAX];
};

_Static_assert(offsetof(struct header, disks) == 216 && sizeof(struct header) == 344, "must match the kernel");

/* The contents of a disk are compared by properties that every writer changes: its time, and a file system's
 * superblock. */
struct identity_note {
	uint64_t size;
	int64_t seconds;
	int64_t nanoseconds;
	uint64_t start; /* a hash of the first page */
};

struct notes {
	uint64_t magic;
	struct identity_note disks[DISKS_MAX];
};

/* FNV-1a */
uint64_t snapshot_hash(const unsigned char *bytes, size_t count)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < count; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
	return sum;
}

static void identify(const char *path, int fd, struct identity_note *note)
{
	unsigned char start[PAGE_BYTES] = {0};
	struct stat st;
	ssize_t got = pread(fd, start, sizeof start, 0);
	if (got < 0 || fstat(fd, &st) < 0)
		fail(NULL, "cannot read image %s: %s", path, strerror(errno));
	*note = (struct identity_note){
		.size = (uint64_t)st.st_size,
		.seconds = st.st_mtim.tv_sec,
		.nanoseconds = st.st_mtim.tv_nsec,
		.start = snapshot_hash(start, (size_t)got),
	};
}

static enum kind kind_of(const struct disk *disk)
{
	return disk->read_only ? KIND_READ_ONLY : disk->cow ? KIND_COW : KIND_WRITABLE;
}

static bool read_header(int fd, struct header *header)
{
	return pread(fd, header, sizeof *header, 0) == sizeof *header && header->magic == MAGIC;
}

static void check_header(const char *path, int fd, const struct header *header)
{
	struct stat st;
	if (header->format != FORMAT)
		fail("make a new one", "snapshot %s has format %u, this nabla-run reads format %d", path,
		     header->format, FORMAT);
	if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size < header->size ||
	    header->size < header->memory)
		fail(NULL, "snapshot %s is truncated", path);
}

/* Properties that are fixed at boot cannot change in a VM that has booted. */
static void check_options(const struct options *o)
{
	const char *fixed = o->append			      ? "append"
			    : strcmp(o->init, INIT_DEFAULT)	      ? "init"
			    : strcmp(o->hostname, HOSTNAME_DEFAULT) ? "hostname"
			    : o->user			      ? "user"
			    : o->service_count		      ? "service"
							      : NULL;
	if (fixed)
		fail("choose it when the snapshot is made", "--%s has no effect on a restored VM", fixed);
}

void snapshot_restore(struct options *o, struct snapshot *s)
{
	struct header header;
	*s = (struct snapshot){.saved = -1, .restored = -1};
	for (size_t i = 0; i < DISKS_MAX; i++)
		s->written[i] = -1;
	if (!o->restore)
		return;
	check_options(o);
	int path_fd = path_open(o->restore, o->follow_symlinks);
	struct stat st;
	if (path_fd < 0 || fstat(path_fd, &st) < 0)
		fail(NULL, "cannot open snapshot %s: %s", o->restore, strerror(errno));
	if (!S_ISREG(st.st_mode))
		fail(NULL, "snapshot %s is not a regular file", o->restore);
	int fd = path_reopen(path_fd, o->restore, O_RDONLY | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		fail(NULL, "cannot open snapshot %s: %s", o->restore, strerror(errno));
	close(path_fd);
	if (!read_header(fd, &header))
		fail("a snapshot is complete when the guest has written it",
		     "%s is not a snapshot, or an incomplete one", o->restore);
	check_header(o->restore, fd, &header);
	memory_restored(o, header.memory);
	s->terminal = header.flags & FLAG_TERMINAL;
	s->network = header.flags & FLAG_NETWORK;
	if (!s->network && o->net.kind != NET_NONE)
		fail("make the snapshot with --net", "--net: the snapshot %s has no network device", o->restore);
	if (!(header.flags & FLAG_CONTROL) && o->name)
		fail("make the snapshot with --name", "--name: the snapshot %s has no control channel", o->restore);
	s->restored = fd_move_high(fd);
}

static void check_disk(const struct options *o, size_t i, int fd, const struct header *header,
		       const struct notes *notes)
{
	static const char *const uses[] = {"", "writable", "read-only", "copy on write"};
	const struct disk *disk = &o->disks[i];
	struct identity_note now;
	uint32_t kind = header->disks[i].kind;
	if (kind > KIND_COW || kind == KIND_NONE)
		fail(NULL, "snapshot %s has no disk %zu for %s", o->restore, i + 1, disk->path);
	if (kind != kind_of(disk))
		fail(kind == KIND_READ_ONLY ? (i ? "add ,ro" : "add --read-only")
		     : kind == KIND_COW	    ? (i ? "add ,cow" : "add --ephemeral")
					    : NULL,
		     "image %s is %s, but it is %s in snapshot %s", disk->path, uses[kind_of(disk)], uses[kind],
		     o->restore);
	identify(disk->path, fd, &now);
	if (memcmp(&now, &notes->disks[i], sizeof now))
		fail(CHANGED_HINT, "image %s is not the one of snapshot %s, or has changed since", disk->path,
		     o->restore);
}

void snapshot_check_disks(const struct options *o, const struct disk_file *files, const struct snapshot *s)
{
	struct header header;
	struct notes notes;
	if (s->restored < 0)
		return;
	if (!read_header(s->restored, &header) ||
	    pread(s->restored, &notes, sizeof notes, PAGE_BYTES) != sizeof notes || notes.magic != NOTES_MAGIC)
		fail("the VM that writes it is still running or was killed", "snapshot %s is incomplete", o->restore);
	for (size_t i = 0; i < o->disk_count; i++)
		check_disk(o, i, files[i].fd, &header, &notes);
	for (size_t i = o->disk_count; i < DISKS_MAX; i++)
		if (header.disks[i].kind != KIND_NONE)
			fail("add --disk", "snapshot %s has more than %zu disks", o->restore, o->disk_count);
}

/* A VM that continues would change its disks, which would then no longer fit its snapshot. */
static void check_writable(const struct options *o)
{
	for (size_t i = 0; i < o->disk_count; i++)
		if (image_is_written(&o->disks[i]) && !o->snapshot_then_exit)
			fail(i ? "add ,ro or ,cow to the disk, or --snapshot-then-exit"
			       : "add --ephemeral, --read-only or --snapshot-then-exit",
			     "--snapshot: the VM would change %s after its snapshot", o->disks[i].path);
}

static void remove_old(const char *path)
{
	struct header header;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(NULL, "cannot replace %s: %s", path, strerror(errno));
	/* An incomplete snapshot lacks the first page, but not the second. */
	bool good = S_ISREG(st.st_mode) && (read_header(fd, &header) || !st.st_size ||
					    (pread(fd, &header, sizeof header.magic, PAGE_BYTES) == sizeof header.magic &&
					     header.magic == NOTES_MAGIC));
	close(fd);
	if (!good)
		fail("choose another name", "--snapshot: %s exists and is not a snapshot", path);
	/* VMs that were started from the old snapshot keep it: the new one is another file. */
	if (unlink(path) < 0)
		fail(NULL, "cannot replace %s: %s", path, strerror(errno));
}

void snapshot_create(const struct options *o, const struct disk_file *files, struct snapshot *s)
{
	struct notes notes = {.magic = NOTES_MAGIC};
	if (!o->snapshot)
		return;
	check_writable(o);
	if (o->dry_run)
		return;
	for (size_t i = 0; i < o->disk_count; i++) {
		identify(o->disks[i].path, files[i].fd, &notes.disks[i]);
		if (image_is_written(&o->disks[i]))
			s->written[i] = fd_copy_high(files[i].fd);
	}
	remove_old(o->snapshot);
	/* It contains all secrets of the VM. */
	int fd = open(o->snapshot, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(NULL, "cannot create snapshot %s: %s", o->snapshot, strerror(errno));
	if (pwrite(fd, &notes, sizeof notes, PAGE_BYTES) != sizeof notes)
		fail(NULL, "cannot write snapshot %s: %s", o->snapshot, strerror(errno));
	s->saved = fd_move_high(fd);
}

void snapshot_finish(const struct options *o, const struct snapshot *s)
{
	struct header header;
	if (s->saved < 0)
		return;
	if (!read_header(s->saved, &header)) {
		note("warning: the guest has not written the snapshot %s (nabla-snapshot)", o->snapshot);
		return;
	}
	for (size_t i = 0; i < o->disk_count; i++) {
		struct identity_note now;
		if (s->written[i] < 0)
			continue;
		identify(o->disks[i].path, s->written[i], &now);
		off_t at = PAGE_BYTES + (off_t)(offsetof(struct notes, disks) + i * sizeof now);
		if (pwrite(s->saved, &now, sizeof now, at) != sizeof now)
			fail(NULL, "cannot write snapshot %s: %s", o->snapshot, strerror(errno));
	}
}

uint64_t snapshot_sum(const unsigned char page[SNAPSHOT_PAGE], uint64_t size)
{
	struct header header;
	memcpy(&header, page, sizeof header);
	if (header.magic != MAGIC || header.format != FORMAT || size < header.size || header.size < header.memory)
		return 0;
	return snapshot_hash(page, SNAPSHOT_PAGE);
}

uint64_t snapshot_size(const struct options *o, const struct disk_file *files)
{
	/* the guest's memory, twice as much in the window, and the window's tables */
	uint64_t size = 3 * o->memory + (UINT64_C(6) << 20);
	for (size_t i = 0; i < o->disk_count; i++)
		if (o->disks[i].cow)
			size += (files[i].size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	return size;
}
