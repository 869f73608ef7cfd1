// SPDX-License-Identifier: Apache-2.0
#include "proxy.h"

#include "cgroup.h"
#include "channel.h"
#include "confine.h"
#include "console.h"
#include "diag.h"
#include "guest/protocol.h"
#include "link.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { CHANNEL_FD = 3, SIGNALS_FD, LINK_FD, FIRST_UNUSED };

static struct termios cooked;
static bool is_raw;

static void restore_terminal(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
	is_raw = false;
}

/* Keys reach the terminal in the guest as they are, and what that shows has been processed. */
static void make_raw(void)
{
	if (tcgetattr(STDIN_FILENO, &cooked) < 0)
		fail("use exec without a terminal", "standard input is no terminal: %s", strerror(errno));
	struct termios raw = cooked;
	cfmakeraw(&raw);
	is_raw = true;
	on_failure(restore_terminal);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

/* All that can be passed on. Faults are this process's own, and a broken pipe says what write() says, too. */
static int catch_signals(void)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPIPE, SIGCHLD};
	sigset_t set;
	sigfillset(&set);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		sigdelset(&set, own[i]);
		signal(own[i], own[i] == SIGPIPE ? SIG_IGN : SIG_DFL);
	}
	sigprocmask(SIG_SETMASK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Moves them above, then down: none of the numbers may be that of another one. */
static void keep_descriptors(int channel, int signals, int link)
{
	int kept[] = {channel, signals, link};
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if ((kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, FIRST_UNUSED)) < 0)
			fail(NULL, "cannot keep a descriptor: %s", strerror(errno));
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		if (dup2(kept[i], CHANNEL_FD + (int)i) < 0)
			fail(NULL, "cannot keep a descriptor: %s", strerror(errno));
	}
	syscall(SYS_close_range, FIRST_UNUSED, ~0u, 0);
}

static _Noreturn void fail_to_start(const struct proxy *p, enum session_event event, const uint32_t numbers[2])
{
	static const char *const names[] = GUEST_STAGE_NAMES;
	if (event == SESSION_REFUSED)
		fail(NULL, "cannot run %s in container %s: %s", p->program, p->state->id, channel_error(numbers[0]));
	if (event != SESSION_FAILED)
		fail(NULL, "cannot run %s in container %s: it has ended", p->program, p->state->id);
	/* a guest may send any numbers */
	const char *why = numbers[1] < 4096 ? strerror((int)numbers[1]) : "unknown error";
	if (numbers[0] > GUEST_STAGE_PROGRAM && numbers[0] < GUEST_STAGE_END)
		fail(NULL, "cannot run %s in container %s: %s: %s", p->program, p->state->id, names[numbers[0] - GUEST_STAGE_PROGRAM], why);
	fail(NULL, "cannot run %s in container %s: %s", p->program, p->state->id, why);
}

static int status_at_end(enum session_event event, const uint32_t numbers[2])
{
	int raw = (int)numbers[0];
	if (event == SESSION_UNHEARD)
		return 128 + SIGPIPE;
	/* with the VM, by SIGKILL as in any container */
	if (event != SESSION_EXITED)
		return 128 + SIGKILL;
	return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
}

static void start(const struct proxy *p, int channel)
{
	struct winsize size;
	struct control_start head = {.kind = CONTROL_PROCESS, .flags = CONTROL_INPUT | CONTROL_ENGINE};
	if (p->terminal) {
		head.flags |= CONTROL_TERMINAL;
		if (!ioctl(STDIN_FILENO, TIOCGWINSZ, &size)) {
			head.rows = size.ws_row;
			head.columns = size.ws_col;
		}
	}
	/* that the broker is gone, session_next() says */
	channel_start(channel, &head, p->words, p->length);
}

void proxy_run(const struct proxy *p)
{
	static struct session session;
	uint32_t numbers[2] = {0, 0};
	bool stays = p->link >= 0;
	if (stays) {
		log_to_parent(p->link);
		setsid();
	}
	int channel = p->channel, signals = catch_signals();
	if (p->slave >= 0)
		console_become(p->slave);
	if (p->state->cgroup)
		cgroup_join(p->state->cgroup);
	if (p->terminal)
		make_raw();
	if (stays) {
		keep_descriptors(channel, signals, p->link);
		log_to_parent(LINK_FD);
		channel = CHANNEL_FD;
		signals = SIGNALS_FD;
	}
	start(p, channel);
	session = (struct session){
		.fd = channel,
		.in = STDIN_FILENO,
		.out = {STDOUT_FILENO, STDERR_FILENO},
		.signals = signals,
		.terminal = p->terminal ? STDIN_FILENO : -1,
	};
	enum session_event event = session_next(&session, numbers);
	if (event != SESSION_STARTED)
		fail_to_start(p, event, numbers);
	if (p->pid_file)
		write_pid_file(p->pid_file, getpid());
	if (stays && chdir("/") < 0)
		fail(NULL, "cannot leave the directory: %s", strerror(errno));
	/* what it has to do from here on is to pass bytes on */
	if (!confine_self())
		fail(NULL, "cannot confine the process of exec: %s", strerror(errno));
	if (stays) {
		link_done(LINK_FD);
		close(LINK_FD);
	}
	event = session_next(&session, numbers);
	restore_terminal();
	_exit(status_at_end(event, numbers));
}
