// SPDX-License-Identifier: Apache-2.0
#include "denials.h"

#include "confine.h"
#include "descriptors.h"
#include "diag.h"
#include "rules.h"
#include "terminal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DESTINATIONS_MAX 64 /* reported ones */
#define COPIED 64	    /* bytes of each packet */
#define MEMORY_MAX (UINT64_C(64) << 20)
#define ALIGN(n) (((n) + 3u) & ~3u)

static const uint16_t calls[] = {SYS_recvfrom, SYS_ppoll, SYS_poll, SYS_writev, SYS_write, SYS_wait4, SYS_kill,
				 SYS_rt_sigreturn, SYS_exit_group};

static bool seen(const char *text)
{
	static char reported[DESTINATIONS_MAX][DENIALS_TEXT];
	static size_t count;
	for (size_t i = 0; i < count; i++)
		if (!strcmp(reported[i], text))
			return true;
	if (count == DESTINATIONS_MAX)
		return true;
	snprintf(reported[count++], DENIALS_TEXT, "%s", text);
	if (count == DESTINATIONS_MAX)
		note("network: denied %s; further destinations are not reported", text);
	return count == DESTINATIONS_MAX;
}

/* --- the log ------------------------------------------------------------------------------------------------------- */

static void report(const char *text)
{
	if (!seen(text))
		note("network: denied %s", text);
}

static void read_log(int log)
{
	static uint8_t buffer[1 << 16];
	ssize_t got = recv(log, buffer, sizeof buffer, MSG_DONTWAIT);
	if (got > 0)
		denials_read(buffer, (size_t)got, report);
}

/* Sends one attribute of the log's group, and waits for the answer. */
static bool configure(int log, uint16_t attribute, const void *value, size_t size)
{
	struct __attribute__((packed)) {
		struct nlmsghdr header;
		struct nfgenmsg general;
		struct nlattr attribute;
		uint8_t value[16];
	} request = {
		.header = {.nlmsg_type = DENIALS_TYPE(NFULNL_MSG_CONFIG), .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.general = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(RULES_LOG_GROUP)},
		.attribute = {.nla_len = (uint16_t)(sizeof(struct nlattr) + size), .nla_type = attribute},
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer;
	memcpy(request.value, value, size);
	request.header.nlmsg_len = NLMSG_HDRLEN + (uint32_t)ALIGN(sizeof request.general + sizeof(struct nlattr) + size);
	if (send(log, &request, request.header.nlmsg_len, 0) < 0 || recv(log, &answer, sizeof answer, 0) < (ssize_t)sizeof answer)
		return false;
	errno = -answer.error.error;
	return answer.header.nlmsg_type == NLMSG_ERROR && !answer.error.error;
}

int denials_open(void)
{
	const struct nfulnl_msg_config_cmd bind = {.command = NFULNL_CFG_CMD_BIND};
	const struct nfulnl_msg_config_mode mode = {.copy_range = htonl(COPIED), .copy_mode = NFULNL_COPY_PACKET};
	const uint32_t at_once = htonl(1);
	int log = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (log < 0 || !configure(log, NFULA_CFG_CMD, &bind, sizeof bind) || !configure(log, NFULA_CFG_MODE, &mode, sizeof mode) ||
	    !configure(log, NFULA_CFG_QTHRESH, &at_once, sizeof at_once))
		fail("the host's kernel needs nfnetlink_log, or leave out --allow and --deny",
		     "cannot open the log of denied connections: %s", strerror(errno));
	return fd_move_high(log);
}

/* --- the process --------------------------------------------------------------------------------------------------- */

static void on_child(int number)
{
	(void)number;
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
	if (syscall(SYS_capset, &header, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(NULL, "cannot drop capabilities: %s", strerror(errno));
}

_Noreturn void denials_report(int log, pid_t inside, pid_t outside)
{
	struct sigaction action = {.sa_handler = on_child};
	struct pollfd event = {.fd = log, .events = POLLIN};
	sigset_t none, child;
	sigemptyset(&none);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* nabla-run makes it raw only later */
	set_raw_line_ends(terminal_present());
	if (dup2(log, STDERR_FILENO + 1) < 0)
		fail(NULL, "cannot copy a descriptor: %s", strerror(errno));
	log = event.fd = STDERR_FILENO + 1;
	close_range_of((unsigned)log + 1, ~0u);
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	drop_capabilities();
	/* no Landlock: the helpers are outside, and it would forbid signals to them; no call here opens a file */
	if (!confine_calls(calls, sizeof calls / sizeof *calls, MEMORY_MAX))
		fail(NULL, "cannot confine a process: %s", strerror(errno));
	for (;;) {
		pid_t ended = waitpid(-1, NULL, WNOHANG);
		if (ended == inside || ended == outside) {
			read_log(log); /* what the guest did last */
			kill(ended == inside ? outside : inside, SIGKILL);
			_exit(0);
		}
		if (ppoll(&event, 1, NULL, &none) > 0)
			read_log(log);
	}
}
