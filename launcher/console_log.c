// SPDX-License-Identifier: Apache-2.0
#include "console_log.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct console_log *console_log_create(void)
{
	void *log = mmap(NULL, sizeof(struct console_log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (log == MAP_FAILED)
		return NULL;
	console_log_share(log, 0);
	return log;
}

void console_log_share(struct console_log *log, int share)
{
	madvise(log, sizeof *log, share ? MADV_DOFORK : MADV_DONTFORK);
}

void console_log_add(struct console_log *log, const void *bytes, size_t length)
{
	uint64_t written = atomic_load(&log->written);
	const uint8_t *from = bytes;
	while (length) {
		size_t at = written % CONSOLE_LOG, part = CONSOLE_LOG - at < length ? CONSOLE_LOG - at : length;
		/* first, so that a reader knows which bytes are about to change */
		atomic_store(&log->written, written += part);
		memcpy(log->bytes + at, from, part);
		from += part;
		length -= part;
	}
}

static uint64_t begin_of(uint64_t written)
{
	return written > CONSOLE_LOG ? written - CONSOLE_LOG : 0;
}

size_t console_log_copy(const struct console_log *log, uint8_t *to)
{
	uint64_t end = atomic_load(&log->written), begin = begin_of(end);
	size_t length = (size_t)(end - begin), at = begin % CONSOLE_LOG;
	size_t part = CONSOLE_LOG - at < length ? CONSOLE_LOG - at : length;
	memcpy(to, log->bytes + at, part);
	memcpy(to + part, log->bytes, length - part);
	/* what was overwritten at the same time is left out */
	uint64_t now = begin_of(atomic_load(&log->written));
	size_t lost = now > begin ? (size_t)(now - begin) : 0;
	if (lost > length)
		lost = length;
	memmove(to, to + lost, length - lost);
	return length - lost;
}
