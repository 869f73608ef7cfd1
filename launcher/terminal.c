// SPDX-License-Identifier: Apache-2.0
#include "terminal.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static struct termios cooked;
static bool have_cooked;
static int flags[3];

bool terminal_present(void)
{
	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

void terminal_remember(bool used)
{
	have_cooked = used && !tcgetattr(STDIN_FILENO, &cooked);
	/* The caller shares the open files: a shell would break if its terminal stayed non-blocking. */
	for (int fd = 0; fd < 3; fd++)
		flags[fd] = fcntl(fd, F_GETFL);
}

void terminal_raw(void)
{
	if (!have_cooked)
		return;
	struct termios raw = cooked;
	cfmakeraw(&raw);
	on_failure(terminal_restore);
	/* In the background, SIGTTOU stops the launcher here until it is in the foreground. */
	while (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
		if (errno != EINTR)
			fail(NULL, "cannot set the terminal to raw mode: %s", strerror(errno));
	set_raw_line_ends(true);
}

void terminal_restore(void)
{
	sigset_t ttou, before;
	for (int fd = 0; fd < 3; fd++)
		if (flags[fd] >= 0 && fcntl(fd, F_GETFL) != flags[fd])
			fcntl(fd, F_SETFL, flags[fd]);
	if (!have_cooked)
		return;
	/* Restore the mode even from the background: no other process will. */
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	sigprocmask(SIG_BLOCK, &ttou, &before);
	while (tcsetattr(STDIN_FILENO, TCSANOW, &cooked) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	set_raw_line_ends(false);
}
