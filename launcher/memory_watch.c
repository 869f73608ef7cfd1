// SPDX-License-Identifier: Apache-2.0
#include "memory_watch.h"

#include "descriptors.h"
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Private memory in addition to the guest's memory and the disks: data and stack of the kernel. */
#define SLACK (UINT64_C(8) << 20)

static bool has_cow_disk(const struct options *o)
{
	for (size_t i = 0; i < o->disk_count; i++)
		if (o->disks[i].cow)
			return true;
	return false;
}

void memory_watch_open(struct memory_watch *watch, const struct options *o)
{
	*watch = (struct memory_watch){.proc = -1, .status = -1};
	if (o->max_cow == UNLIMITED || !has_cow_disk(o))
		return;
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		fail("mount /proc, or add --max-cow none", "--max-cow: cannot open /proc: %s", strerror(errno));
	watch->proc = fd_move_high(proc);
	/* the guest's memory, and twice as much in the window */
	watch->limit_kib = 3 * (o->memory >> 10) + (o->max_cow >> 10) + (SLACK >> 10);
}

void memory_watch_start(struct memory_watch *watch, pid_t vm)
{
	char name[32];
	if (watch->proc < 0)
		return;
	snprintf(name, sizeof name, "%d/status", vm);
	watch->status = openat(watch->proc, name, O_RDONLY | O_CLOEXEC);
	if (watch->status >= 0)
		return;
	int error = errno;
	if (error != ENOENT) /* the VM has not been reaped, so only a hidden /proc lacks it */
		fail("add --max-cow none", "--max-cow: cannot read the VM's memory usage: %s", strerror(error));
	fail("mount /proc without hidepid, or add --max-cow none", "--max-cow: this host's /proc does not show the VM");
}

/* Returns the value of a line like "RssAnon:   1234 kB", 0 without such a line. */
static uint64_t value_of(const char *text, const char *key)
{
	const char *line = strstr(text, key);
	return line ? strtoull(line + strlen(key), NULL, 10) : 0;
}

bool memory_watch_exceeded(const struct memory_watch *watch)
{
	char text[4096];
	ssize_t length = pread(watch->status, text, sizeof text - 1, 0);
	if (length <= 0)
		return false; /* the VM has ended */
	text[length] = '\0';
	return value_of(text, "\nRssAnon:") + value_of(text, "\nVmSwap:") > watch->limit_kib;
}
