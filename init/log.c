// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PART(text) {(void *)(text), strlen(text)}

void log_error(const char *what, const char *reason)
{
	struct iovec parts[] = {
		PART("nabla-init: "), PART(what), PART(reason ? ": " : ""), PART(reason ? reason : ""), PART("\n"),
	};
	/* There is no other place to report a failure of the console. */
	if (writev(STDERR_FILENO, parts, sizeof parts / sizeof *parts) < 0)
		return;
}
