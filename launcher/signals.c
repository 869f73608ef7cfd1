// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include "descriptors.h"
#include "diag.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

int signals_block(sigset_t *handled)
{
	static const int numbers[] = {SIGWINCH, SIGTSTP, SIGTERM, SIGINT, SIGHUP, SIGQUIT};
	sigemptyset(handled);
	sigaddset(handled, SIGCHLD);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct sigaction now;
		/* Signals that the caller ignores (nohup) stay ignored: the signalfd would return a blocked one. */
		if (!sigaction(numbers[i], NULL, &now) && now.sa_handler != SIG_IGN)
			sigaddset(handled, numbers[i]);
	}
	/* If the caller ignored SIGCHLD, there would be no exit status. */
	signal(SIGCHLD, SIG_DFL);
	/* The reader of --stats-fd may go away without ending the VM. The kernel ignores SIGPIPE anyway. */
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, handled, NULL);
	/* A blocked SIGCONT still continues the launcher, and stays pending: signals_stop() looks for it. */
	sigset_t continues;
	sigemptyset(&continues);
	sigaddset(&continues, SIGCONT);
	sigprocmask(SIG_BLOCK, &continues, NULL);
	int fd = signalfd(-1, handled, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fail(NULL, "cannot create a signalfd: %s", strerror(errno));
	return fd_move_high(fd);
}

int signals_pending(const sigset_t *handled)
{
	static const struct timespec at_once;
	sigset_t others = *handled, pending;
	sigdelset(&others, SIGTSTP);
	int number = sigtimedwait(&others, NULL, &at_once);
	if (number > 0)
		return number;
	sigpending(&pending);
	return sigismember(handled, SIGTSTP) && sigismember(&pending, SIGTSTP) ? SIGTSTP : 0;
}

void signals_stop(void)
{
	sigset_t set, pending;
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigpending(&pending);
	if (!sigismember(&pending, SIGCONT))
		raise(SIGSTOP);
}
