// SPDX-License-Identifier: Apache-2.0
#include "image.h"

#include "descriptors.h"
#include "diag.h"
#include "open_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

/* Offsets in the superblock, see Documentation/filesystems/ext4 of the kernel. */
#define SUPERBLOCK_AT 1024
#define SUPERBLOCK_SIZE 1024
#define S_BLOCKS_COUNT_LO 4
#define S_LOG_BLOCK_SIZE 24
#define S_MAGIC 56
#define S_FEATURE_INCOMPAT 96
#define S_BLOCKS_COUNT_HI 336
#define MAGIC 0xef53
#define INCOMPAT_RECOVER 0x4
#define INCOMPAT_64BIT 0x80
#define LOG_BLOCK_SIZE_MAX 6 /* 64 KiB */

#define SUPPORTED_IMAGES "the root image is a file with an ext2, ext3 or ext4 file system; --disk accepts any data"

static uint32_t le32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Checked before the file is opened: opening a device can have side effects. */
static void check_type(const struct stat *st, const char *path)
{
	if (S_ISDIR(st->st_mode))
		fail(SUPPORTED_IMAGES, "image %s is a directory", path);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		fail(NULL, "image %s is neither a regular file nor a block device", path);
}

static uint64_t size_of(int fd, const char *path)
{
	struct stat st;
	uint64_t size;
	if (fstat(fd, &st) < 0)
		fail(NULL, "cannot examine image %s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode))
		return (uint64_t)st.st_size;
	if (ioctl(fd, BLKGETSIZE64, &size) < 0)
		fail(NULL, "cannot get the size of image %s: %s", path, strerror(errno));
	return size;
}

static void check_file_system(int fd, const char *path, uint64_t size, bool read_only)
{
	unsigned char sb[SUPERBLOCK_SIZE];
	ssize_t got = pread(fd, sb, sizeof sb, SUPERBLOCK_AT);
	if (got < 0)
		fail(NULL, "cannot read image %s: %s", path, strerror(errno));
	if (got < (ssize_t)sizeof sb || (sb[S_MAGIC] | sb[S_MAGIC + 1] << 8) != MAGIC) {
		char start[4] = "";
		bool qcow2 = pread(fd, start, sizeof start, 0) == sizeof start && !memcmp(start, "QFI\xfb", 4);
		fail(qcow2 ? "it is in qcow2 format; convert it to a raw image"
			   : "partitioned disks and other file systems are not supported",
		     "image %s contains no ext2, ext3 or ext4 file system", path);
	}

	uint32_t log_block_size = le32(sb + S_LOG_BLOCK_SIZE);
	uint32_t incompat = le32(sb + S_FEATURE_INCOMPAT);
	uint64_t blocks = le32(sb + S_BLOCKS_COUNT_LO);
	if (incompat & INCOMPAT_64BIT)
		blocks |= (uint64_t)le32(sb + S_BLOCKS_COUNT_HI) << 32;
	if (log_block_size > LOG_BLOCK_SIZE_MAX || !blocks)
		fail("check it with e2fsck -fn", "image %s has a damaged superblock", path);
	if (blocks > size >> (10 + log_block_size))
		fail(NULL,
		     "image %s is truncated: its file system has %llu blocks of %u KiB, but the file has %llu bytes",
		     path, (unsigned long long)blocks, 1u << log_block_size, (unsigned long long)size);
	if (read_only && incompat & INCOMPAT_RECOVER)
		fail("start it once with --ephemeral or without --read-only, or run e2fsck -p on it",
		     "image %s was not shut down cleanly and cannot be used read-only", path);
}

static void lock(int fd, const char *path, bool writable)
{
	if (!flock(fd, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB))
		return;
	if (errno == EWOULDBLOCK)
		fail(writable ? "VMs can share an image that none of them writes: --read-only, --ephemeral, ,ro, ,cow"
			      : "the other VM may write to it",
		     "image %s is in use by another VM", path);
	/* Some file systems have no locks. That is not an error, but the user should know. */
	note("warning: cannot lock image %s: %s", path, strerror(errno));
}

bool image_is_written(const struct disk *disk)
{
	return !disk->read_only && !disk->cow;
}

static int open_file(const struct disk *disk, bool is_root, bool follow_symlinks)
{
	const char *path = disk->path;
	bool writable = image_is_written(disk);
	struct stat st;
	int path_fd = path_open(path, follow_symlinks);
	if (path_fd < 0 || fstat(path_fd, &st) < 0)
		fail(NULL, "cannot open image %s: %s", path, strerror(errno));
	check_type(&st, path);
	/* With O_EXCL, the host refuses a mounted block device. O_NONBLOCK avoids a wait for a lease on the file. */
	int flags = writable ? O_RDWR | (S_ISBLK(st.st_mode) ? O_EXCL : 0) : O_RDONLY;
	int fd = path_reopen(path_fd, path, flags | O_NOCTTY | O_NONBLOCK);
	int error = errno;
	if (fd < 0 && error == EBUSY)
		fail("unmount it first", "image %s is in use by this host", path);
	if (fd < 0 && writable && (error == EACCES || error == EROFS || error == EPERM) &&
	    path_reopen(path_fd, path, O_RDONLY | O_NONBLOCK) >= 0)
		fail(is_root ? "use --read-only or --ephemeral" : "add ,ro or ,cow", "cannot write to image %s: %s",
		     path, strerror(error));
	if (fd < 0)
		fail(NULL, "cannot open image %s: %s", path, strerror(error));
	close(path_fd);
	return fd_move_high(fd);
}

void image_open(const struct disk *disk, bool is_root, bool follow_symlinks, struct disk_file *file)
{
	const char *path = disk->path;
	file->fd = open_file(disk, is_root, follow_symlinks);
	file->size = size_of(file->fd, path);
	if (!file->size)
		fail(NULL, "image %s is empty", path);
	/* Lock first: no other VM changes the image during the checks. */
	lock(file->fd, path, image_is_written(disk));
	if (is_root)
		check_file_system(file->fd, path, file->size, disk->read_only);
	if (file->size % SECTOR)
		fail("extend it: truncate -s %512 FILE", "the size of image %s is not a multiple of %d bytes",
		     path, SECTOR);
}
