// SPDX-License-Identifier: Apache-2.0
// Extended attributes, allocation and holes of files on tmpfs: results, limits of the mount, and users without rights.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <grp.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

enum { PAGE = 4096, MB = 1024 * 1024, NOBODY = 65534 };

#define FOLDER "/run/attributes"
#define FAILS(call, error) ((call) == -1 && errno == (error))

static struct statvfs use(void)
{
	struct statvfs s = {0};
	statvfs(".", &s);
	return s;
}

static long pages_of(int fd)
{
	struct stat s;
	return fstat(fd, &s) ? -1 : s.st_blocks / (PAGE / 512);
}

static off_t size_of(int fd)
{
	struct stat s;
	return fstat(fd, &s) ? -1 : s.st_size;
}

/* Returns whether `name` is in a list of `length` bytes. */
static int listed(const char *list, ssize_t length, const char *name)
{
	for (const char *p = list; p < list + length; p += strlen(p) + 1)
		if (!strcmp(p, name))
			return 1;
	return 0;
}

static void test_values(void)
{
	char value[70000] = "", list[512];
	ssize_t length;
	close(open("a", O_CREAT | O_RDWR, 0644));
	CHECK(setxattr("a", "user.one", "first", 5, 0) == 0 && getxattr("a", "user.one", value, 9) == 5 && !memcmp(value, "first", 5),
	      "an attribute is set and read");
	CHECK(getxattr("a", "user.one", NULL, 0) == 5 && FAILS(getxattr("a", "user.one", value, 4), ERANGE), "its size; ERANGE");
	CHECK(FAILS(setxattr("a", "user.one", "x", 1, XATTR_CREATE), EEXIST), "XATTR_CREATE: EEXIST");
	CHECK(FAILS(setxattr("a", "user.two", "x", 1, XATTR_REPLACE), ENODATA), "XATTR_REPLACE: ENODATA");
	CHECK(setxattr("a", "user.one", "", 0, XATTR_REPLACE) == 0 && getxattr("a", "user.one", value, 9) == 0, "an empty value");
	CHECK(FAILS(getxattr("a", "user.none", value, 9), ENODATA) && FAILS(removexattr("a", "user.none"), ENODATA),
	      "an absent one: ENODATA");
	CHECK(FAILS(setxattr("a", "other.one", "x", 1, 0), EOPNOTSUPP), "another prefix: EOPNOTSUPP");
	CHECK(FAILS(setxattr("a", "user.", "x", 1, 0), EINVAL), "no name: EINVAL");
	CHECK(setxattr("a", "user.large", value, 65536, 0) == 0 && FAILS(setxattr("a", "user.large", value, 65537, 0), E2BIG),
	      "65,536 bytes; more: E2BIG");
	memset(value, 'n', 251);
	memcpy(value, "user.", 5);
	value[255] = 0;
	memset(value + 5, 'n', 250);
	CHECK(setxattr("a", value, "x", 1, 0) == 0 && removexattr("a", value) == 0, "a name of 255 bytes");
	value[255] = 'n';
	value[256] = 0;
	CHECK(FAILS(setxattr("a", value, "x", 1, 0), ERANGE), "of 256 bytes: ERANGE");
	length = listxattr("a", list, sizeof list);
	CHECK(length == 9 + 11 && listed(list, length, "user.one") && listed(list, length, "user.large"), "the list of names");
	CHECK(FAILS(listxattr("a", list, 5), ERANGE) && listxattr("a", NULL, 0) == length, "ERANGE, and the list's size");
	symlink("a", "l");
	CHECK(FAILS(lsetxattr("l", "user.one", "x", 1, 0), EPERM), "a symbolic link has no user.*: EPERM");
	CHECK(lsetxattr("l", "trusted.one", "x", 1, 0) == 0 && lgetxattr("l", "trusted.one", value, 9) == 1 &&
		      FAILS(getxattr("l", "trusted.one", value, 9), ENODATA),
	      "but trusted.*, which are not those of its target");
	mkdir("d", 0755);
	CHECK(setxattr("d", "user.d", "x", 1, 0) == 0 && listxattr("d", list, sizeof list) == 7, "a directory's");
	int fd = open("a", O_RDWR);
	CHECK(rename("a", "b") == 0 && link("b", "c") == 0 && fgetxattr(fd, "user.large", NULL, 0) == 65536 &&
		      getxattr("c", "user.large", NULL, 0) == 65536,
	      "attributes belong to the inode, not to its name");
	close(fd);
	unlink("b");
	unlink("c");
	unlink("l");
	rmdir("d");
}

/* CAP_NET_RAW, effective; revision 2 */
static const uint32_t raw_capability[] = {0x02000001, 1 << 13, 0, 0, 0};

/* In a child without rights: the number of the first operation that wrongly succeeds, or 0. */
static int without_rights(void)
{
	char list[256];
	ssize_t length;
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return 1;
	if (!FAILS(setxattr("own", "trusted.x", "x", 1, 0), EPERM) || !FAILS(setxattr("own", "security.x", "x", 1, 0), EPERM))
		return 2;
	if (!FAILS(setxattr("own", "security.capability", raw_capability, sizeof raw_capability, 0), EPERM))
		return 3;
	if (!FAILS(getxattr("own", "trusted.secret", list, 9), ENODATA) || !FAILS(removexattr("own", "security.mark"), EPERM))
		return 4;
	length = listxattr("own", list, sizeof list);
	if (listed(list, length, "trusted.secret") || !listed(list, length, "security.mark"))
		return 5;
	if (!FAILS(setxattr("other", "user.x", "x", 1, 0), EACCES) || !FAILS(getxattr("hidden", "user.x", list, 9), EACCES))
		return 6;
	return setxattr("own", "user.x", "x", 1, 0) ? 7 : 0;
}

static void test_rights(void)
{
	close(open("own", O_CREAT | O_RDWR, 0644));
	close(open("other", O_CREAT | O_RDWR, 0644));
	close(open("hidden", O_CREAT | O_RDWR, 0600));
	chown("own", NOBODY, NOBODY);
	CHECK(setxattr("own", "trusted.secret", "s", 1, 0) == 0 && setxattr("own", "security.mark", "m", 1, 0) == 0 &&
		      setxattr("hidden", "user.x", "x", 1, 0) == 0,
	      "root sets attributes of each kind");
	pid_t child = fork();
	if (!child)
		_exit(without_rights());
	CHECK(exited_with(wait_status(child), 0), "a user has rights to user.* of files only, as their modes say");
	unlink("own");
	unlink("other");
	unlink("hidden");
}

/* Capabilities of a file apply, and a write by another user removes them. */
static void test_capability(void)
{
	int fd = open("program", O_CREAT | O_RDWR, 0666);
	CHECK(write(fd, "x", 1) == 1 && fsetxattr(fd, "security.capability", raw_capability, sizeof raw_capability, 0) == 0 &&
		      fgetxattr(fd, "security.capability", NULL, 0) == sizeof raw_capability,
	      "a file's capabilities");
	fchown(fd, NOBODY, NOBODY);
	fsetxattr(fd, "security.capability", raw_capability, sizeof raw_capability, 0);
	pid_t child = fork();
	if (!child)
		_exit(setuid(NOBODY) || write(fd, "y", 1) != 1);
	CHECK(exited_with(wait_status(child), 0) && FAILS(fgetxattr(fd, "security.capability", NULL, 0), ENODATA),
	      "are gone after somebody has written to it");
	close(fd);
	unlink("program");
}

/* Access control lists: the format is <linux/posix_acl_xattr.h>'s. */
struct acl {
	uint32_t version;
	struct entry {
		uint16_t tag, rights;
		uint32_t id;
	} entry[5];
};

enum { OWNER = 1, USER = 2, GROUP = 4, MASK = 16, OTHER = 32, NONE = -1 };

#define ACL(rights, mask) \
	{2, {{OWNER, 7, NONE}, {USER, rights, NOBODY}, {GROUP, 0, NONE}, {MASK, mask, NONE}, {OTHER, 0, NONE}}}

/* The result of open(2) for a user without rights: 0 or an error. */
static int opened_by(uid_t user, const char *path, int flags)
{
	pid_t child = fork();
	if (!child) {
		if (setgroups(0, NULL) || setgid(user) || setuid(user))
			_exit(1);
		_exit(open(path, flags) < 0 ? errno : 0);
	}
	int status = wait_status(child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_access_lists(void)
{
	static const char access_list[] = "system.posix_acl_access", default_list[] = "system.posix_acl_default";
	struct acl acl = ACL(6, 7), got = {0}, limited = ACL(6, 4), wrong = {.version = 2};
	char list[256];
	struct stat s;
	close(open("guarded", O_CREAT | O_RDWR, 0600));
	CHECK(opened_by(NOBODY, "guarded", O_RDONLY) == EACCES, "only the owner opens a file");
	CHECK(setxattr("guarded", access_list, &acl, sizeof acl, 0) == 0 && opened_by(NOBODY, "guarded", O_RDWR) == 0 &&
		      opened_by(NOBODY - 1, "guarded", O_RDONLY) == EACCES,
	      "a list lets one user in, and no other");
	CHECK(getxattr("guarded", access_list, &got, sizeof got) == sizeof got && !memcmp(&got, &acl, sizeof got) &&
		      listed(list, listxattr("guarded", list, sizeof list), access_list),
	      "it is read back and listed");
	CHECK(stat("guarded", &s) == 0 && (s.st_mode & 0777) == 0770, "the mode's group is its mask");
	CHECK(chmod("guarded", 0740) == 0 && getxattr("guarded", access_list, &got, sizeof got) == sizeof got &&
		      !memcmp(&got, &limited, sizeof got) && opened_by(NOBODY, "guarded", O_RDWR) == EACCES &&
		      opened_by(NOBODY, "guarded", O_RDONLY) == 0,
	      "chmod sets the mask");
	CHECK(FAILS(setxattr("guarded", access_list, &wrong, sizeof wrong, 0), EINVAL) &&
		      FAILS(setxattr("guarded", access_list, &acl, sizeof acl - 1, 0), EINVAL) &&
		      FAILS(setxattr("guarded", default_list, &acl, sizeof acl, 0), EACCES),
	      "lists without sense are refused");
	CHECK(removexattr("guarded", access_list) == 0 && opened_by(NOBODY, "guarded", O_RDONLY) == EACCES, "without the list, the mode counts");
	mkdir("folder", 0711);
	umask(077);
	CHECK(setxattr("folder", default_list, &acl, sizeof acl, 0) == 0 && close(open("folder/new", O_CREAT | O_RDWR, 0660)) == 0 &&
		      opened_by(NOBODY, "folder/new", O_RDWR) == 0 && stat("folder/new", &s) == 0 && (s.st_mode & 0777) == 0660,
	      "a new file has its folder's default list, whatever the umask is");
	CHECK(mkdir("folder/in", 0777) == 0 && getxattr("folder/in", default_list, &got, sizeof got) == sizeof got, "a new folder has it, too");
	CHECK(close(open("plain", O_CREAT | O_RDWR, 0666)) == 0 && stat("plain", &s) == 0 && (s.st_mode & 0777) == 0600,
	      "without one, the umask counts");
	int fd = open(".", O_TMPFILE | O_RDWR, 0666);
	CHECK(fstat(fd, &s) == 0 && (s.st_mode & 0777) == 0600, "also for a file without a name");
	close(fd);
	umask(0);
	rmdir("folder/in");
	unlink("folder/new");
	rmdir("folder");
	unlink("plain");
	unlink("guarded");
}

static void test_limit_of_attributes(void)
{
	static char value[60000];
	char name[32];
	unsigned long before = use().f_ffree;
	int count = 0;
	close(open("full", O_CREAT | O_RDWR, 0644));
	do
		snprintf(name, sizeof name, "user.%d", count);
	while (setxattr("full", name, value, sizeof value, 0) == 0 && ++count < 1000);
	CHECK(count > 0 && count < 1000 && errno == ENOSPC, "attributes count against the mount's limit of inodes: ENOSPC");
	CHECK(setxattr("full", "user.0", "x", 1, 0) == 0 && setxattr("full", "user.small", value, 20000, 0) == 0,
	      "a smaller value makes room");
	CHECK(unlink("full") == 0 && use().f_ffree == before, "all of it comes back with the file's end");
	int none = 0;
	close(open("many", O_CREAT | O_RDWR, 0644));
	for (count = 0; !none; count += !none) {
		snprintf(name, sizeof name, "user.%d", count);
		none = setxattr("many", name, "", 0, 0);
	}
	CHECK(errno == ENOSPC && count > 100 && use().f_ffree == 0, "so do empty ones");
	CHECK(unlink("many") == 0 && use().f_ffree == before, "and they come back");
}

static void test_allocation(void)
{
	unsigned long before = use().f_bfree;
	int fd = open("f", O_CREAT | O_RDWR, 04755);
	CHECK(fallocate(fd, 0, 100, MB) == 0 && size_of(fd) == MB + 100 && pages_of(fd) == 257 && before - use().f_bfree == 257,
	      "allocation sets the size and takes pages");
	CHECK(fallocate(fd, 0, 0, MB) == 0 && size_of(fd) == MB + 100 && pages_of(fd) == 257, "and takes none a second time");
	CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, MB, MB) == 0 && size_of(fd) == MB + 100 && pages_of(fd) == 512,
	      "FALLOC_FL_KEEP_SIZE takes pages behind the end");
	char byte = 1;
	CHECK(ftruncate(fd, 2 * MB) == 0 && pread(fd, &byte, 1, 2 * MB - 1) == 1 && byte == 0 && ftruncate(fd, MB) == 0 &&
		      pages_of(fd) == 256,
	      "which are zero, and go when the file is cut");
	CHECK(FAILS(fallocate(fd, 0, 0, 1L << 40), ENOSPC) && FAILS(fallocate(fd, 0, MB, (long)use().f_bfree * PAGE + PAGE), ENOSPC) &&
		      pages_of(fd) == 256,
	      "more than the mount may have: ENOSPC, and nothing is taken");
	CHECK(FAILS(fallocate(fd, 0, 0, -1), EINVAL) && FAILS(fallocate(fd, 0, -1, 1), EINVAL) && FAILS(fallocate(fd, 0, 1, INT64_MAX), EFBIG),
	      "EINVAL, EFBIG");
	static const int others[] = {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE};
	int refused = 1;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		refused &= FAILS(fallocate(fd, others[i], 0, PAGE), EOPNOTSUPP);
	CHECK(refused && pages_of(fd) == 256, "modes that tmpfs does not have: EOPNOTSUPP");
	pid_t child = fork();
	if (!child)
		_exit(fchown(fd, NOBODY, NOBODY) || fchmod(fd, 04755) || setuid(NOBODY) || fallocate(fd, 0, 0, 1));
	struct stat s;
	CHECK(exited_with(wait_status(child), 0) && fstat(fd, &s) == 0 && !(s.st_mode & S_ISUID), "a user's takes the set-user-ID bit");
	int other = open("f", O_RDONLY);
	CHECK(FAILS(fallocate(other, 0, 0, 1), EBADF), "a file that is open for reading: EBADF");
	close(other);
	close(fd);
	CHECK(unlink("f") == 0 && use().f_bfree == before, "all of it comes back with the file's end");
}

static void test_holes(void)
{
	enum { SIZE = 16 * PAGE, HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
	static char data[SIZE];
	int fd = open("h", O_CREAT | O_RDWR, 0644);
	memset(data, 'd', SIZE);
	CHECK(write(fd, data, SIZE) == SIZE && fallocate(fd, HOLE, PAGE, 4 * PAGE) == 0 && pages_of(fd) == 12, "a hole frees pages");
	CHECK(pread(fd, data, SIZE, 0) == SIZE && data[PAGE - 1] == 'd' && !data[PAGE] && !data[5 * PAGE - 1] && data[5 * PAGE] == 'd' &&
		      pages_of(fd) == 12,
	      "and reads as zeros, and stays a hole");
	CHECK(fallocate(fd, HOLE, 6 * PAGE + 10, 20) == 0 && pread(fd, data, PAGE, 6 * PAGE) == PAGE && data[9] == 'd' && !data[10] &&
		      !data[29] && data[30] == 'd' && pages_of(fd) == 12,
	      "a part of a page is cleared");
	CHECK(fallocate(fd, HOLE, 15 * PAGE, 1L << 40) == 0 && size_of(fd) == SIZE && pages_of(fd) == 11, "behind the end there is none");
	char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (CHECK(map != MAP_FAILED, "a shared mapping")) {
		memset(map, 'm', SIZE);
		CHECK(fallocate(fd, HOLE, 8 * PAGE, 2 * PAGE) == 0 && map[8 * PAGE - 1] == 'm' && !map[8 * PAGE] && !map[10 * PAGE - 1] &&
			      map[10 * PAGE] == 'm',
		      "sees the hole");
		map[9 * PAGE] = 'n';
		CHECK(pread(fd, data, 1, 9 * PAGE) == 1 && data[0] == 'n', "and fills it");
		munmap(map, SIZE);
	}
	close(fd);
	unlink("h");
}

static void test_seals(void)
{
	enum { HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
	int fd = memfd_create("seals", MFD_ALLOW_SEALING);
	CHECK(fallocate(fd, 0, 0, 2 * PAGE) == 0 && size_of(fd) == 2 * PAGE && pages_of(fd) == 2, "a memfd allocates");
	CHECK(FAILS(fallocate(fd, 0, 0, 1L << 42), ENOSPC) && pages_of(fd) == 2, "more than the memory: ENOSPC");
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0 && FAILS(fallocate(fd, 0, 0, 3 * PAGE), EPERM) && fallocate(fd, 0, 0, PAGE) == 0,
	      "F_SEAL_GROW: EPERM");
	CHECK(fallocate(fd, HOLE, 0, PAGE) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0 && FAILS(fallocate(fd, HOLE, PAGE, PAGE), EPERM) &&
		      pages_of(fd) == 1,
	      "F_SEAL_WRITE: EPERM for a hole");
	CHECK(fsetxattr(fd, "user.m", "x", 1, 0) == 0 && fgetxattr(fd, "user.m", NULL, 0) == 1, "attributes of a memfd");
	close(fd);
}

int main(void)
{
	umask(0);
	mkdir(FOLDER, 0755);
	if (!CHECK(mount("none", FOLDER, "tmpfs", 0, "size=8M,nr_inodes=500") == 0 && chdir(FOLDER) == 0, "a tmpfs of 8 MB"))
		return tap_done();
	test_values();
	test_rights();
	test_capability();
	test_access_lists();
	test_limit_of_attributes();
	test_allocation();
	test_holes();
	test_seals();
	CHECK(use().f_bfree == use().f_blocks && use().f_ffree == use().f_files - 1, "nothing is left of all this");
	chdir("/");
	umount(FOLDER);
	rmdir(FOLDER);
	return tap_done();
}
