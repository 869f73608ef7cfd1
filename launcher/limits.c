// SPDX-License-Identifier: Apache-2.0
#include "limits.h"

#include "descriptors.h"
#include "diag.h"
#include "snapshot.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Address space besides the guest's memory and the disks with ,cow: stack, vDSO, and the rounding of execve. Measured:
 * 0.2 MiB; a long command line extends the stack, by at most 2 MiB under the usual limit.
 */
#define ADDRESS_SPACE_SLACK (UINT64_C(4) << 20)
/*
 * The kernel's window and its tables, and the addresses below the kernel. These are only addresses: the kernel limits the
 * memory there by RLIMIT_DATA.
 */
#define WINDOW (UINT64_C(66) << 30)

static bool is_regular(int fd)
{
	struct stat st;
	return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

/* The limit applies to all files that the VM writes, including a redirected console. */
static rlim_t file_size(const struct options *o, const struct disk_file *disks)
{
	rlim_t largest = 0;
	/* With --max-output, the VM writes to pipes only. */
	if (o->max_output == UNLIMITED && (is_regular(STDOUT_FILENO) || is_regular(STDERR_FILENO)))
		return RLIM_INFINITY;
	for (size_t i = 0; i < o->disk_count; i++)
		if (image_is_written(&o->disks[i]) && disks[i].size > largest)
			largest = disks[i].size;
	if (o->snapshot && snapshot_size(o, disks) > largest)
		largest = snapshot_size(o, disks);
	return largest;
}

static rlim_t address_space(const struct options *o, const struct disk_file *disks)
{
	rlim_t sum = o->memory + ADDRESS_SPACE_SLACK + WINDOW;
	for (size_t i = 0; i < o->disk_count; i++)
		if (o->disks[i].cow)
			sum += disks[i].size;
	return sum;
}

bool limits_permit_window(const struct options *o, const struct disk_file *disks)
{
	struct rlimit now;
	return getrlimit(RLIMIT_AS, &now) < 0 || now.rlim_max >= address_space(o, disks);
}

/* The launcher measures --cpu-time exactly. The host's kernel rounds, but does not depend on the launcher. */
static rlim_t cpu_time(const struct options *o)
{
	return o->cpu_time_ns == UNLIMITED ? RLIM_INFINITY : o->cpu_time_ns / 1000000000 + 2;
}

static rlim_t descriptors(const struct options *o)
{
	if (o->name)
		return FD_COUNT;
	if (o->mount_count || o->disks[0].directory)
		return FD_STREAM + o->mount_count + 1;
	return o->snapshot || o->restore ? FD_STREAM : FD_COUNT_PLAIN;
}

void limits_choose(const struct options *o, const struct disk_file *disks, struct limit limits[LIMITS])
{
	const struct limit chosen[LIMITS] = {
		{"RLIMIT_AS", RLIMIT_AS, address_space(o, disks)},
		{"RLIMIT_FSIZE", RLIMIT_FSIZE, file_size(o, disks)},
		{"RLIMIT_CPU", RLIMIT_CPU, cpu_time(o)},
		{"RLIMIT_NPROC", RLIMIT_NPROC, 1},
		{"RLIMIT_NOFILE", RLIMIT_NOFILE, descriptors(o)},
		{"RLIMIT_CORE", RLIMIT_CORE, 0},
	};
	for (int i = 0; i < LIMITS; i++) {
		struct rlimit now;
		limits[i] = chosen[i];
		if (getrlimit(chosen[i].resource, &now) < 0 || now.rlim_max >= chosen[i].value)
			continue;
		/* Without a window, mappings are in the guest's memory only. */
		if (chosen[i].resource == RLIMIT_AS && now.rlim_max < chosen[i].value - WINDOW)
			fail("lower --memory, or raise the limit: ulimit -v",
			     "the limit of address space is too low for the VM: it is %llu KiB, the VM needs %llu KiB",
			     (unsigned long long)now.rlim_max >> 10, (unsigned long long)(chosen[i].value - WINDOW) >> 10);
		limits[i].value = now.rlim_max;
	}
}

void pin_to_processor(void)
{
	cpu_set_t set;
	int processor = sched_getcpu();
	CPU_ZERO(&set);
	if (processor >= 0)
		CPU_SET(processor, &set);
	if (processor < 0 || sched_setaffinity(0, sizeof set, &set) < 0)
		fail(NULL, "--pin: cannot choose a processor: %s", strerror(errno));
}

bool limit_processor_time(const struct options *o)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_CPU, &limit) < 0)
		return false;
	if (limit.rlim_max > cpu_time(o))
		limit.rlim_max = cpu_time(o);
	limit.rlim_cur = limit.rlim_max;
	return !setrlimit(RLIMIT_CPU, &limit);
}

bool limits_set(const struct limit limits[LIMITS])
{
	for (int i = 0; i < LIMITS; i++) {
		struct rlimit limit = {limits[i].value, limits[i].value};
		if (setrlimit(limits[i].resource, &limit) < 0)
			return false;
	}
	return true;
}
