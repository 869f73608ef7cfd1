// SPDX-License-Identifier: Apache-2.0
// Files and directories on a real file system (ext3 in the VM): argument 1 is the directory to work in, "." if absent.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <dirent.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/uio.h>

static int write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t n = write(fd, text, strlen(text));
	return close(fd) == 0 && n == (ssize_t)strlen(text);
}

static int holds(const char *name, const char *text)
{
	char found[4096] = "";
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, found, sizeof found - 1);
	close(fd);
	return n == (ssize_t)strlen(text) && !strcmp(found, text);
}

static void test_names(void)
{
	struct stat a, b;
	char target[64] = "";
	CHECK(write_file("one", "first") && holds("one", "first"), "create, write, read back");
	CHECK(open("one", O_WRONLY | O_CREAT | O_EXCL, 0644) == -1 && errno == EEXIST, "O_EXCL: EEXIST");
	CHECK(open("none", O_RDONLY) == -1 && errno == ENOENT, "a missing file: ENOENT");
	CHECK(rename("one", "two") == 0 && holds("two", "first") && access("one", F_OK), "rename");
	write_file("three", "third");
	CHECK(rename("two", "three") == 0 && holds("three", "first"), "rename over a file");
	CHECK(link("three", "linked") == 0 && stat("three", &a) == 0 && stat("linked", &b) == 0 && a.st_ino == b.st_ino &&
		      a.st_nlink == 2, "a hard link");
	CHECK(unlink("three") == 0 && holds("linked", "first"), "unlink leaves the other name");
	CHECK(symlink("linked", "symbolic") == 0 && holds("symbolic", "first"), "a symbolic link is followed");
	CHECK(readlink("symbolic", target, sizeof target) == 6 && !strcmp(target, "linked"), "and read");
	CHECK(lstat("symbolic", &a) == 0 && S_ISLNK(a.st_mode), "lstat");
	CHECK(symlink("loop", "loop") == 0 && open("loop", O_RDONLY) == -1 && errno == ELOOP, "a loop: ELOOP");
	static char long_link[200];
	memset(long_link, 'l', sizeof long_link - 1);
	CHECK(symlink(long_link, "long") == 0 && readlink("long", (char[256]){0}, 256) == 199, "a long symbolic link");
	char long_name[300];
	memset(long_name, 'n', 255);
	long_name[255] = 0;
	CHECK(write_file(long_name, "x") && unlink(long_name) == 0, "a name of 255 bytes");
	memset(long_name, 'n', 256);
	long_name[256] = 0;
	CHECK(open(long_name, O_CREAT | O_WRONLY, 0600) == -1 && errno == ENAMETOOLONG, "256: ENAMETOOLONG");
	CHECK(!write_file("missing/file", "x"), "no file in a missing directory");
	int fd = open("gone", O_RDWR | O_CREAT, 0600);
	CHECK(unlink("gone") == 0 && write(fd, "still", 5) == 5 && pread(fd, target, 5, 0) == 5, "an open file outlives its name");
	close(fd);
	unlink("linked");
	unlink("symbolic");
	unlink("loop");
	unlink("long");
}

static void test_directories(void)
{
	char path[PATH_MAX] = "", deep[600] = "d";
	CHECK(mkdir("dir", 0755) == 0 && mkdir("dir", 0755) == -1 && errno == EEXIST, "mkdir, and again: EEXIST");
	CHECK(write_file("dir/a", "a") && rmdir("dir") == -1 && errno == ENOTEMPTY, "rmdir of a full one: ENOTEMPTY");
	CHECK(rename("dir", "moved") == 0 && holds("moved/a", "a"), "a directory is renamed");
	mkdir("moved/sub", 0755);
	CHECK(rename("moved", "moved/sub/into") == -1 && errno == EINVAL, "not into itself: EINVAL");
	CHECK(chdir("moved/sub") == 0 && getcwd(path, sizeof path) && strstr(path, "/moved/sub") && chdir("../..") == 0,
	      "chdir and getcwd");
	CHECK(unlink("moved") == -1, "unlink of a directory fails");
	int fd = open("moved", O_RDONLY | O_DIRECTORY | O_CLOEXEC), in = openat(fd, "a", O_RDONLY);
	CHECK(fd >= 0 && in >= 0 && unlinkat(fd, "a", 0) == 0 && unlinkat(fd, "sub", AT_REMOVEDIR) == 0, "openat and unlinkat");
	close(fd);
	close(in);
	CHECK(rmdir("moved") == 0, "rmdir");
	for (int i = 0; i < 100; i++) {
		mkdir(deep, 0755);
		strcat(deep, "/d");
	}
	deep[strlen(deep) - 2] = 0;
	CHECK(access(deep, F_OK) == 0, "a hundred directories deep");
	int removed = 0;
	for (int i = 0; i < 100; i++) {
		removed += rmdir(deep) == 0;
		if (strlen(deep) > 2)
			deep[strlen(deep) - 2] = 0;
	}
	CHECK(removed == 100, "and back");
}

static void test_many(void)
{
	enum { MANY = 1000 };
	char name[64];
	int good = 0, found = 0, removed = 0;
	mkdir("many", 0755);
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "many/file-number-%d", i);
		good += write_file(name, name);
	}
	CHECK(good == MANY, "a thousand files");
	DIR *d = opendir("many");
	for (struct dirent *e; d && (e = readdir(d));)
		found += !strncmp(e->d_name, "file-number-", 12);
	if (d)
		closedir(d);
	CHECK(found == MANY, "all are listed");
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "many/file-number-%d", i);
		removed += holds(name, name) && unlink(name) == 0;
	}
	CHECK(removed == MANY && rmdir("many") == 0, "all hold what was written, and go");
}

static void test_content(void)
{
	char text[64] = "";
	struct stat st;
	int fd = open("content", O_RDWR | O_CREAT | O_TRUNC, 0644);
	struct iovec parts[2] = {{"abc", 3}, {"def", 3}};
	CHECK(writev(fd, parts, 2) == 6 && pread(fd, text, 6, 0) == 6 && !memcmp(text, "abcdef", 6), "writev and pread");
	CHECK(pwrite(fd, "XY", 2, 2) == 2 && pread(fd, text, 6, 0) == 6 && !memcmp(text, "abXYef", 6), "pwrite");
	CHECK(lseek(fd, 0, SEEK_END) == 6 && lseek(fd, -100, SEEK_SET) == -1 && errno == EINVAL, "lseek");
	CHECK(ftruncate(fd, 3) == 0 && fstat(fd, &st) == 0 && st.st_size == 3, "made shorter");
	memset(text, 'q', sizeof text);
	CHECK(ftruncate(fd, 20) == 0 && pread(fd, text, 64, 0) == 20 && !memcmp(text, "abX\0\0\0\0\0\0\0", 10), "made longer: zeros");
	CHECK(fsync(fd) == 0 && fdatasync(fd) == 0, "fsync and fdatasync");
	close(fd);
	fd = open("content", O_WRONLY | O_APPEND);
	CHECK(write(fd, "+", 1) == 1 && lseek(fd, 0, SEEK_CUR) == 21, "O_APPEND");
	close(fd);

	fd = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(pwrite(fd, "end", 3, 1L << 30) == 3 && fstat(fd, &st) == 0 && st.st_size == (1L << 30) + 3 &&
		      st.st_blocks < 1000, "a sparse file of 1 GB takes little space");
	CHECK(pread(fd, text, 8, 500000000) == 8 && !memcmp(text, "\0\0\0\0\0\0\0\0", 8), "its hole reads as zeros");
	off_t data = lseek(fd, 0, SEEK_DATA);
	CHECK(data >= 0 && data <= 1L << 30, "SEEK_DATA");
	close(fd);
	unlink("sparse");
	int from = open("content", O_RDONLY), to = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(sendfile(to, from, NULL, 100) == 21 && fstat(to, &st) == 0 && st.st_size == 21, "sendfile");
	close(from);
	close(to);
	unlink("copy");
	unlink("content");
}

static void test_big(void)
{
	enum { BLOCK = 1 << 16, BLOCKS = 512 }; // 32 MB
	static unsigned block[BLOCK / 4];
	int wrong = 0, short_ones = 0;
	int fd = open("big", O_RDWR | O_CREAT | O_TRUNC, 0644);
	for (int i = 0; i < BLOCKS; i++) {
		for (size_t j = 0; j < BLOCK / 4; j++)
			block[j] = i * 2654435761U + j;
		short_ones += write(fd, block, BLOCK) != BLOCK;
	}
	CHECK(short_ones == 0 && fsync(fd) == 0, "32 MB are written");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); // from the disk, not from the cache
	lseek(fd, 0, SEEK_SET);
	for (int i = 0; i < BLOCKS; i++) {
		short_ones += read(fd, block, BLOCK) != BLOCK;
		for (size_t j = 0; j < BLOCK / 4; j++)
			wrong += block[j] != i * 2654435761U + j;
	}
	CHECK(short_ones == 0 && wrong == 0, "and read back the same");
	close(fd);
	CHECK(unlink("big") == 0, "and removed");
}

static void test_attributes(void)
{
	struct stat st;
	struct statvfs vfs;
	struct statfs fs;
	struct timespec times[2] = {{1000000000, 0}, {1100000000, 0}};
	write_file("attributes", "x");
	CHECK(chmod("attributes", 04711) == 0 && stat("attributes", &st) == 0 && (st.st_mode & 07777) == 04711, "chmod");
	CHECK(utimensat(AT_FDCWD, "attributes", times, 0) == 0 && stat("attributes", &st) == 0 && st.st_mtime == 1100000000 &&
		      st.st_atime == 1000000000, "utimensat");
	if (getuid() == 0)
		CHECK(chown("attributes", 1000, 1001) == 0 && stat("attributes", &st) == 0 && st.st_uid == 1000 && st.st_gid == 1001,
		      "chown");
	// The tmpfs of a kernel without MMU is a ramfs, which has no size.
	int sized = !(statfs(".", &fs) == 0 && fs.f_type == 0x858458f6);
	CHECK(statvfs(".", &vfs) == 0 && (!sized || vfs.f_blocks > 0) && vfs.f_bfree <= vfs.f_blocks, "statvfs");
	mode_t old = umask(077);
	write_file("masked", "x");
	umask(old);
	CHECK(stat("masked", &st) == 0 && (st.st_mode & 0777) == 0600, "umask");
	unlink("masked");
	unlink("attributes");
}

static int lock_role(const char *name)
{
	int fd = open(name, O_RDWR);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
	int code = 0;
	if (fcntl(fd, F_SETLK, &lock) == -1 && (errno == EAGAIN || errno == EACCES))
		code |= 1;
	lock.l_start = 20;
	if (fcntl(fd, F_SETLK, &lock) == 0)
		code |= 2;
	if (flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK)
		code |= 4;
	return code;
}

static void test_locks(void)
{
	write_file("locked", "some text");
	int fd = open("locked", O_RDWR | O_CLOEXEC);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
	CHECK(fcntl(fd, F_SETLK, &lock) == 0 && flock(fd, LOCK_EX) == 0, "record lock and flock");
	CHECK(exited_with(run_role("lock", "locked"), 7), "another process meets both, and gets the free range");
	CHECK(flock(fd, LOCK_UN) == 0, "unlock");
	close(fd);
	CHECK(exited_with(run_role("lock", "locked"), 2), "closing let go");
	unlink("locked");
}

static void test_mapping(void)
{
	write_file("mapped", "mapped text");
	int fd = open("mapped", O_RDWR | O_CLOEXEC);
	char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED && !memcmp(p, "mapped text", 12), "a private mapping reads the file, zeros behind it");
	if (p != MAP_FAILED)
		munmap(p, 4096);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (CHECK(p != MAP_FAILED, "a writable private mapping")) {
		p[0] = 'M';
		CHECK(holds("mapped", "mapped text"), "writing there leaves the file alone");
		munmap(p, 4096);
	}
	close(fd);
	unlink("mapped");
}

/* Only where blocks can be reserved: ext4's extents, not the memory file systems of a kernel without an MMU. */
static void test_allocation(void)
{
	struct stat st;
	struct statfs fs;
	char link[64];
	int fd = open("reserved", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	statfs(".", &fs);
	if (fs.f_type == 0xef53) {
		CHECK(fallocate(fd, 0, 0, 1 << 20) == 0 && fstat(fd, &st) == 0 && st.st_size == 1 << 20 &&
			      st.st_blocks >= 2048,
		      "fallocate reserves blocks");
		CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 19) == 0 &&
			      fstat(fd, &st) == 0 && st.st_blocks < 2048,
		      "fallocate punches a hole");
		CHECK(posix_fallocate(fd, 1 << 20, 4096) == 0, "posix_fallocate");
	}
	close(fd);
	unlink("reserved");

	fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && write(fd, "nameless", 8) == 8, "O_TMPFILE");
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	CHECK(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0 && holds("named", "nameless"),
	      "linkat gives it a name");
	close(fd);
	unlink("named");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "lock"))
		return lock_role(argv[2]);
	char work[] = "nabla-files-XXXXXX";
	if (argc > 1 && chdir(argv[1])) {
		tap_write(2, "cannot enter %s: %s\n", argv[1], strerror(errno));
		return 2;
	}
	if (!mkdtemp(work) || chdir(work))
		return 2;
	test_names();
	test_directories();
	test_many();
	test_content();
	test_big();
	test_attributes();
	test_locks();
	test_mapping();
	test_allocation();
	CHECK(chdir("..") == 0 && rmdir(work) == 0, "nothing is left behind");
	sync();
	return tap_done();
}
