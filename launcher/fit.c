// SPDX-License-Identifier: Apache-2.0
#include "fit.h"

#include "limits.h"
#include "snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef NABLA_VERSION
#define NABLA_VERSION "unknown"
#endif

#define LAYOUT 4 /* of struct fit, and of the steps of nabla-init before it saves the VM */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define AT_HWCAP2_NUMBER 26
#define FRESH_S 3 /* the coarsest time stamps of file systems have steps of two seconds */

static bool identify(int fd, uint64_t kind, struct file_identity *id)
{
	struct stat st;
	/* A block device does not record when it was written. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	*id = (struct file_identity){
		.device = st.st_dev,
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.kind = kind,
		.modified = {st.st_mtim.tv_sec, st.st_mtim.tv_nsec},
		.changed = {st.st_ctim.tv_sec, st.st_ctim.tv_nsec},
	};
	return true;
}

static bool read_boot_id(char id[40])
{
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, id, 40);
	if (fd >= 0)
		close(fd);
	return got >= 32;
}

bool fit_describe(struct fit *fit, const struct vm *vm, const struct disk_file *files, const char **why)
{
	const struct options *o = vm->options;
	memset(fit, 0, sizeof *fit);
	_Static_assert(sizeof *fit == 64 + 40 + 4 * 8 + 2 * 4 + (1 + DISKS_MAX) * 64, "padding would be compared");
	snprintf(fit->launcher, sizeof fit->launcher, "%d %s", LAYOUT, NABLA_VERSION);
	fit->hwcap[0] = getauxval(AT_HWCAP);
	fit->hwcap[1] = getauxval(AT_HWCAP2_NUMBER);
	fit->memory = o->memory;
	fit->window = limits_permit_window(o, files);
	fit->terminal = vm->terminal;
	fit->verbose = o->verbose;
	if (!read_boot_id(fit->boot)) {
		*why = "the host's boot ID cannot be read";
		return false;
	}
	if (!identify(vm->kernel.fd, 0, &fit->kernel)) {
		*why = "the kernel cannot be examined";
		return false;
	}
	for (size_t i = 0; i < o->disk_count; i++) {
		if (identify(files[i].fd, o->disks[i].cow ? 2 : 1, &fit->disks[i]))
			continue;
		*why = "a disk is a block device";
		return false;
	}
	return true;
}

static bool is_fresh(const struct file_identity *id, time_t now)
{
	/* A user can set the time of modification, but not the time of change. */
	return id->size && id->changed[0] + FRESH_S > now;
}

bool fit_is_fresh(const struct fit *fit)
{
	time_t now = time(NULL);
	bool fresh = is_fresh(&fit->kernel, now);
	for (size_t i = 0; i < DISKS_MAX; i++)
		fresh = fresh || is_fresh(&fit->disks[i], now);
	return fresh;
}

void fit_name(const struct fit *fit, char name[CACHE_NAME_MAX])
{
	snprintf(name, CACHE_NAME_MAX, "%016llx.snap",
		 (unsigned long long)snapshot_hash((const unsigned char *)fit, sizeof *fit));
}
