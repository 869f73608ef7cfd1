// SPDX-License-Identifier: Apache-2.0
// Calls into the vsyscall page, with which old static programs read the time. Without such a page, a call is the
// program's own SIGSEGV.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <setjmp.h>
#include <sys/time.h>

#define PAGE 0xffffffffff600000UL

static sigjmp_buf back;

static void on_signal(int sig)
{
	siglongjmp(back, sig);
}

/* Returns 0, or the signal that ended the call. */
static int call(unsigned long place, void *argument, long *result)
{
	int sig = sigsetjmp(back, 1);
	if (!sig)
		*result = ((long (*)(void *, void *))place)(argument, NULL);
	return sig;
}

int main(void)
{
	struct timeval tv = {0, 0};
	long result = 0;
	time_t before = time(NULL);
	signal(SIGSEGV, on_signal);
	int sig = call(PAGE + 1024, NULL, &result);
	/* The page's clock is as coarse as a tick: just after a second has begun, it may show the one before. */
	CHECK(sig == SIGSEGV || (sig == 0 && result >= before - 1 && result <= before + 60), "time");
	sig = call(PAGE, &tv, &result);
	CHECK(sig == SIGSEGV || (sig == 0 && result == 0 && tv.tv_sec >= before), "gettimeofday");
	sig = call(PAGE + 2048, NULL, &result);
	CHECK(sig == SIGSEGV || (sig == 0 && result == 0), "getcpu");
	CHECK(call(PAGE, (void *)8, &result) == SIGSEGV || result == -EFAULT, "gettimeofday with a wild pointer");
	CHECK(call(PAGE + 1, NULL, &result) == SIGSEGV, "elsewhere in the page");
	CHECK(getppid() > 0, "the VM is still there");
	return tap_done();
}
