/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts, attributes and allocation: calls whose arguments have to fit each other. */
#ifndef NABLA_FILESYSTEMS_H
#define NABLA_FILESYSTEMS_H

#include "arguments.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/xattr.h>

/* A tmpfs with all forms of its options, and another form for the next mount of it. */
static void mount_tmpfs(void)
{
	static const char *const names[] = {"size=", "nr_inodes=", "nr_blocks=", "mode=", "uid=", "gid=", "mpol=", "huge=", ""};
	static const char *const units[] = {"", "k", "m", "g", "%", "e", "x", ",", "=", "\n"};
	char options[200] = "";
	size_t length = 0;
	for (word n = fuzz_below(4); n && length < 120; n--)
		length += snprintf(options + length, sizeof options - length, "%s%s%ld%s", length ? "," : "", fuzz_pick(names),
				   (long)(fuzz_one_in(2) ? fuzz_below(200) : fuzz_border()), fuzz_pick(units));
	mount("fuzz", "/tmp/fuzz/d", "tmpfs", fuzz_one_in(3) ? MS_REMOUNT : 0, options);
	if (fuzz_one_in(2))
		umount2("/tmp/fuzz/d", fuzz_below(8));
}

/* Attributes of a file with names that exist, allocations and holes: mostly on tmpfs, which may be full. */
static void label_and_allocate(void)
{
	static const char *const kinds[] = {"user.", "user.", "trusted.", "security.", "system.", ""};
	static const char *const files[] = {"/tmp/fuzz/a", "/tmp/fuzz", "/tmp/fuzz/d", "/var/tmp/fuzz/a"};
	char name[300];
	const char *file = fuzz_pick(files);
	word size = fuzz_one_in(4) ? 65537 - fuzz_below(3) : fuzz_below(fuzz_one_in(4) ? 60000 : 300);
	snprintf(name, sizeof name, "%s%0*lu", fuzz_pick(kinds), fuzz_one_in(8) ? 252 : 1, fuzz_below(40));
	switch (fuzz_below(6)) {
	case 0:
	case 1:
		setxattr(file, name, arena, size, fuzz_below(4));
		break;
	case 2:
		removexattr(file, name);
		break;
	case 3:
		getxattr(file, name, own(), fuzz_one_in(2) ? size : 0);
		listxattr(file, own(), size);
		break;
	default: {
		word start = fuzz_one_in(4) ? fuzz_any() : fuzz_below(100000), length = fuzz_one_in(4) ? fuzz_border() : fuzz_below(100000);
		fallocate((int)descriptor(), (int)fuzz_below(fuzz_one_in(4) ? 128 : 4), (off_t)start, (off_t)length);
	}
	}
}

#endif
