// SPDX-License-Identifier: Apache-2.0
#include "status.h"

#include "descriptors.h"
#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define MAGIC UINT64_C(0x317473616c62616e) /* "nablast1" */
#define FLAG_TERMINAL 1u

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 8u
#endif

/* Must match asm/nommu.h of the kernel. */
struct page {
	uint64_t magic; /* set by the kernel when it has mapped the page */
	uint64_t boot_ns;
	uint64_t user_ns;
	uint16_t rows, cols, xpixel, ypixel;
	uint32_t flags;
	uint32_t count;
	uint64_t reserved[3];
	struct {
		uint32_t number;
		uint32_t reserved;
		uint64_t count;
	} calls[STATUS_CALLS];
};

_Static_assert(offsetof(struct page, rows) == 24 && offsetof(struct page, count) == 36, "must match the kernel");
_Static_assert(offsetof(struct page, calls) == 64 && sizeof(struct page) == 320, "must match the kernel");

static volatile struct page *page;

int status_create(void)
{
	/* Old hosts do not know MFD_NOEXEC_SEAL, and new ones may require it (vm.memfd_noexec). */
	int fd = memfd_create("nabla-status", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("nabla-status", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, PAGE_BYTES) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		fail(NULL, "cannot create the status page: %s", strerror(errno));
	page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		fail(NULL, "cannot map the status page: %s", strerror(errno));
	return fd_move_high(fd);
}

void status_set_window(bool terminal)
{
	struct winsize size;
	if (!terminal)
		return;
	page->flags = FLAG_TERMINAL;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
		return;
	page->rows = size.ws_row;
	page->cols = size.ws_col;
	page->xpixel = size.ws_xpixel;
	page->ypixel = size.ws_ypixel;
}

static uint64_t zero_unless_between(uint64_t value, uint64_t from, uint64_t to)
{
	return from <= value && value <= to ? value : 0;
}

void status_read(struct status *status, uint64_t from, uint64_t to)
{
	*status = (struct status){0};
	if (page->magic != MAGIC)
		return;
	status->boot_ns = zero_unless_between(page->boot_ns, from, to);
	if (status->boot_ns)
		status->user_ns = zero_unless_between(page->user_ns, status->boot_ns, to);
	uint32_t count = page->count;
	status->count = count < STATUS_CALLS ? count : STATUS_CALLS;
	for (size_t i = 0; i < status->count; i++) {
		status->calls[i].number = page->calls[i].number;
		status->calls[i].count = page->calls[i].count;
	}
}

bool status_user_started(void)
{
	return page->magic == MAGIC && page->user_ns;
}

uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
