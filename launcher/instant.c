// SPDX-License-Identifier: Apache-2.0
// The first start of an image creates the snapshot in a separate VM, and restores it like all later starts. Neither the
// command nor its settings are part of it: nabla-init saves the VM before it applies them.
#include "instant.h"

#include "cache.h"
#include "descriptors.h"
#include "fit.h"
#include "maker.h"
#include "snapshot.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEAL_MAGIC UINT64_C(0x31736e69616c626e) /* "nblains1" */
#define RETRY_S 3600
#define MEMORY_MAX (UINT64_C(8) << 30) /* the tables of more memory make the file large, and the first start slow */
#define NEVER_SAVED "the image does not save its boot"

/* The second page of the file, written when the guest has completed the rest and has ended. */
struct seal {
	uint64_t magic;
	uint64_t sum; /* of the first page */
	struct fit fit;
};

_Static_assert(sizeof(struct seal) <= SNAPSHOT_PAGE, "the memory of the guest follows");

/* Returns why a VM with these options has to boot, or NULL. */
static const char *reason_to_boot(const struct options *o)
{
	const char *cold = getenv("NABLA_COLD");
	if (o->cold)
		return "--cold";
	if (cold && *cold)
		return "NABLA_COLD is set";
	/* a command finds out how the VM has started before it saves that */
	if (o->snapshot && !o->name)
		return "--snapshot";
	if (o->trace_policy)
		return "--trace-policy";
	if (o->append)
		return "--append";
	if (strcmp(o->init, INIT_DEFAULT))
		return "--init";
	if (o->net.kind != NET_NONE)
		return "--net";
	if (o->disks[0].directory)
		return "the root is a directory";
	if (o->mount_count)
		return "--mount";
	if (o->memory > MEMORY_MAX)
		return "more than 8 GiB of memory";
	for (size_t i = 0; i < o->disk_count; i++)
		if (image_is_written(&o->disks[i]))
			return "a disk is writable";
	return NULL;
}

/* A write to the file changes its time of change: if that is still the same, nothing has written to the file. */
static time_t time_of(const struct seal *seal)
{
	return (time_t)(snapshot_hash((const unsigned char *)seal, sizeof *seal) & 0x3fffffff);
}

/* Kernels refuse a file that they cannot map, for instance on a file system that is mounted noexec. */
static bool is_mappable(int fd)
{
	void *at = mmap(NULL, SNAPSHOT_PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	return at != MAP_FAILED && !munmap(at, SNAPSHOT_PAGE);
}

static bool is_intact(int fd, const struct stat *st, const struct fit *fit, const char **why)
{
	static struct {
		unsigned char first[SNAPSHOT_PAGE];
		union {
			unsigned char page[SNAPSHOT_PAGE];
			struct seal seal;
		} second;
	} head;
	const struct seal *seal = &head.second.seal;
	if (!st->st_size) {
		*why = NEVER_SAVED;
		return false;
	}
	bool read = pread(fd, &head, sizeof head, 0) == sizeof head;
	uint64_t sum = read ? snapshot_sum(head.first, (uint64_t)st->st_size) : 0;
	if (!sum || seal->magic != SEAL_MAGIC || seal->sum != sum || st->st_mtim.tv_sec != time_of(seal))
		*why = "the snapshot in the cache is damaged";
	else if (memcmp(&seal->fit, fit, sizeof *fit))
		*why = "the snapshot in the cache does not fit";
	else if (!is_mappable(fd))
		*why = "the file system of the cache folder is mounted noexec";
	else
		return true;
	return false;
}

/* Returns the snapshot, or -1: with the reason, or without one if the caller should create the snapshot. */
static int find(int folder, const char *name, const struct fit *fit, bool repair, const char **why)
{
	struct stat st = {0};
	int fd = cache_find(folder, name, why);
	if (fd < 0)
		return -1;
	if (!fstat(fd, &st) && is_intact(fd, &st, fit, why))
		return fd;
	close(fd);
	if (!*why)
		*why = "the snapshot in the cache cannot be examined";
	/* The next start creates a new one; an image that saved nothing gets another chance, as the host may have been
	 * busy. */
	if (repair && (st.st_size || st.st_ctim.tv_sec + RETRY_S < time(NULL)))
		unlinkat(folder, name, 0);
	return -1;
}

/* A guest that hits the caller's limit would be killed. */
static bool may_write(uint64_t size)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= size;
}

/* Completes the file if the guest has saved itself; otherwise truncates it. */
static bool seal_file(int fd, const struct fit *fit)
{
	unsigned char first[SNAPSHOT_PAGE];
	static struct seal seal;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return false;
	seal = (struct seal){.magic = SEAL_MAGIC, .fit = *fit};
	if (pread(fd, first, sizeof first, 0) == sizeof first)
		seal.sum = snapshot_sum(first, (uint64_t)st.st_size);
	if (!seal.sum)
		return !ftruncate(fd, 0);
	const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = time_of(&seal)}};
	return pwrite(fd, &seal, sizeof seal, SNAPSHOT_PAGE) == sizeof seal && !fchmod(fd, 0400) &&
	       !futimens(fd, times);
}

static void make(const struct vm *vm, const struct disk_file *files, int folder, const char *name,
		 const struct fit *fit, const char **why)
{
	if (fit_is_fresh(fit)) {
		*why = "an image or the kernel was changed a moment ago";
		return;
	}
	if (!may_write(snapshot_size(vm->options, files))) {
		*why = "the limit of the size of files is too low";
		return;
	}
	/* One at a time: a hundred simultaneous starts create one snapshot, not a hundred. */
	if (flock(folder, LOCK_EX | LOCK_NB) < 0) {
		*why = "another start is creating the snapshot";
		return;
	}
	int fd = cache_create(folder, why);
	if (fd < 0)
		return;
	if (!maker_run(vm, files, fd))
		*why = "no process can be started";
	else if (!seal_file(fd, fit))
		*why = "the snapshot cannot be completed";
	else
		cache_publish(folder, fd, name, why);
	close(fd);
}

static int find_or_make(const struct vm *vm, const struct disk_file *files, const char **why)
{
	const struct options *o = vm->options;
	char name[CACHE_NAME_MAX];
	static struct fit fit;
	int fd;
	*why = reason_to_boot(o);
	if (*why || !fit_describe(&fit, vm, files, why))
		return -1;
	int folder = cache_open(!o->dry_run, why);
	if (folder < 0)
		return -1;
	fit_name(&fit, name);
	fd = find(folder, name, &fit, !o->dry_run, why);
	if (fd < 0 && !*why && o->dry_run)
		*why = "there is no snapshot yet";
	if (fd < 0 && !*why) {
		make(vm, files, folder, name, &fit, why);
		if (!*why)
			fd = find(folder, name, &fit, false, why);
		if (fd < 0 && !*why)
			*why = "the snapshot has vanished";
	}
	close(folder);
	return fd;
}

void instant_start(struct vm *vm, struct options *options, const struct disk_file *files)
{
	vm->start = (struct start){.restored = options->restore, .why = NULL};
	if (options->restore)
		return;
	int fd = find_or_make(vm, files, &vm->start.why);
	if (fd < 0)
		return;
	vm->start.restored = true;
	vm->snapshot.restored = fd;
	vm->descriptors[FD_RESTORE] = fd;
	options->restore = "of the boot";
}
