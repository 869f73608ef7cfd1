// SPDX-License-Identifier: Apache-2.0
#include "fence.h"

#include "denials.h"
#include "descriptors.h"
#include "diag.h"
#include "helper.h"
#include "lookup.h"
#include "rules.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define UNSHARED (CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
#define PING_GROUPS "/proc/sys/net/ipv4/ping_group_range"
#define LOWEST_PORT "/proc/sys/net/ipv4/ip_unprivileged_port_start"
#define SERVERS_MAX 8
#define NEEDS "--allow and --deny need "

/* Of pasta's device in the namespace. Link-local: no host behind pasta has them. */
#define ADDRESS "169.254.77.1"
#define PREFIX "30"
#define GATEWAY "169.254.77.2"

static struct pinned *pinned;
static size_t pinned_count;
static uint32_t server; /* 1: the guest may ask the host's name server */

struct words {
	const char **list;
	size_t count;
};

static void add_word(struct words *words, const char *word)
{
	words->list = realloc(words->list, (words->count + 2) * sizeof *words->list);
	if (!words->list)
		fail(NULL, "out of memory");
	words->list[words->count++] = word;
	words->list[words->count] = NULL;
}

static void add_loopback_port(void *context, uint16_t port)
{
	static const char *const options[] = {"--tcp-ns", "--udp-ns"};
	for (int i = 0; i < 2; i++) {
		add_word(context, options[i]);
		add_word(context, format_text("%u", port));
	}
}

const char *const *fence_command(const struct net *net)
{
	static const char *const fixed[] = {
		"pasta", "--foreground", "--quiet", "--ipv4-only", "--pid", "/proc/self/fd/1", "--interface", "lo",
		"--mac-addr", HELPER_MAC, "--mtu", HELPER_MTU, "--config-net", "--ns-ifname", RULES_DEVICE, "--address", ADDRESS,
		"--netmask", PREFIX, "--gateway", GATEWAY, "--no-map-gw", "--no-dhcp", "--dns-forward", RULES_SERVER,
	};
	static const char *const kinds[] = {"--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"};
	struct words words = {NULL, 0};
	bool used[4] = {false, false, false, false};
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		add_word(&words, fixed[i]);
	for (size_t i = 0; i < net->publish_count; i++) {
		const struct publish *p = &net->publish[i];
		used[p->udp] = true;
		add_word(&words, kinds[p->udp]);
		add_word(&words, format_text("%s/%u", p->address ? p->address : "127.0.0.1", p->host_port));
	}
	size_t before = words.count;
	rules_loopback(net, add_loopback_port, &words);
	used[2] = used[3] = words.count > before;
	/* by default, pasta forwards what listens */
	for (int i = 0; i < 4; i++) {
		if (used[i])
			continue;
		add_word(&words, kinds[i]);
		add_word(&words, "none");
	}
	return words.list;
}

/* --- the keeper ---------------------------------------------------------------------------------------------------- */

static _Noreturn void fail_forbidden(const char *what)
{
	fail("allow user namespaces on this host, or leave out --allow and --deny",
	     NEEDS "user namespaces: cannot %s: %s", what, strerror(errno));
}

/* As passt, which does not run as root either. */
static void become_ordinary(void)
{
	if (geteuid())
		return;
	if ((setgroups(0, NULL) < 0 && errno != EPERM) || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	    setresuid(NOBODY, NOBODY, NOBODY) < 0)
		fail(NULL, "cannot become user %d for the network: %s", NOBODY, strerror(errno));
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return good;
}

static void enter_namespaces(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char map[64];
	/* pasta opens the namespaces by the keeper's process ID, and the keeper its own maps */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (unshare(UNSHARED) < 0)
		fail_forbidden("create namespaces");
	snprintf(map, sizeof map, "%u %u 1", gid, gid);
	if (!write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/gid_map", map))
		fail_forbidden("map the group");
	snprintf(map, sizeof map, "%u %u 1", uid, uid);
	if (!write_file("/proc/self/uid_map", map))
		fail_forbidden("map the user");
	/* published ports and those of the host's loopback have the same numbers in the namespace */
	if (!write_file(LOWEST_PORT, "0"))
		fail_forbidden("write " LOWEST_PORT);
	snprintf(map, sizeof map, "%u %u", gid, gid);
	write_file(PING_GROUPS, map); /* without it, no pings */
}

/* nft keeps the capability over its execve. */
static void keep_capability(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	if (syscall(SYS_capget, &header, sets) < 0)
		return;
	sets[0].inheritable |= 1u << CAP_NET_ADMIN;
	syscall(SYS_capset, &header, sets);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
}

static _Noreturn void exec_nft(int input)
{
	char *words[] = {(char[]){"nft"}, (char[]){"-f"}, (char[]){"-"}, NULL};
	keep_capability();
	helper_streams(input);
	execvp(words[0], words);
	/* not in the PATH of ordinary users everywhere */
	execv("/usr/sbin/nft", words);
	execv("/sbin/nft", words);
	dprintf(STDERR_FILENO, "%s\n", errno == ENOENT ? "not found" : strerror(errno));
	_exit(EXIT_OWN_ERROR);
}

static void set_rules(const struct net *net)
{
	int ends[2], status = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!pid)
		exec_nft(ends[0]);
	close(ends[0]);
	FILE *out = fdopen(ends[1], "w");
	signal(SIGPIPE, SIG_IGN);
	if (!out)
		fail(NULL, "out of memory");
	rules_write(out, net, pinned, pinned_count, server);
	bool written = !fclose(out);
	signal(SIGPIPE, SIG_DFL);
	waitpid(pid, &status, 0);
	if (written && WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	const char *why = helper_message();
	if (!strcmp(why, "not found"))
		fail("install the package nftables, or leave out --allow and --deny",
		     NEEDS "nftables: the program nft was not found");
	fail("the host's kernel needs nf_tables, nf_conntrack and nfnetlink_log", NEEDS "nftables: nft: %s", why);
}

/* A process outside of the namespaces that the keeper is about to create. */
static pid_t fork_pasta(const struct options *o, const char *const *words, pid_t keeper, int gate[2], int ready[2])
{
	char byte;
	helper_pipe(gate);
	helper_pipe(ready);
	pid_t pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (pid) {
		close(gate[0]);
		close(ready[1]);
		return pid;
	}
	close(gate[1]);
	helper_tie(keeper);
	if (read(gate[0], &byte, 1) != 1)
		_exit(EXIT_OWN_ERROR);
	helper_exec(o, keeper, words, -1, ready[1]);
}

static pid_t start_passt(const struct options *o, const char *const *words, int socket)
{
	int ready[2];
	helper_pipe(ready);
	pid_t own = getpid(), pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!pid)
		helper_exec(o, own, words, socket, ready[1]);
	close(ready[1]);
	close(socket);
	helper_wait(words, pid, ready[0]);
	return pid;
}

static void send_all(int to, const void *data, size_t size)
{
	for (const char *at = data; size;) {
		ssize_t sent = write(to, at, size);
		if (sent <= 0)
			_exit(EXIT_OWN_ERROR); /* nabla-run is gone */
		at += sent;
		size -= (size_t)sent;
	}
}

static _Noreturn void keep(const struct options *o, pid_t launcher, const char *const *passt, int socket, int result)
{
	const struct net *net = &o->net;
	int gate[2], ready[2];
	struct in_addr servers[SERVERS_MAX];
	struct words pasta = {NULL, 0};
	sigset_t none;
	/* the terminal's signals must not end it: it lives as long as passt */
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	become_ordinary();
	helper_tie(launcher);
	pinned = lookup_names(net, &pinned_count);
	server = rules_admit_server(net, pinned, pinned_count, servers, lookup_servers(servers, SERVERS_MAX));
	for (const char *const *word = fence_command(net); *word; word++)
		add_word(&pasta, *word);
	add_word(&pasta, format_text("%d", getpid()));
	pid_t outside = fork_pasta(o, pasta.list, getpid(), gate, ready);
	enter_namespaces();
	/* the rules first: nothing is ever open */
	set_rules(net);
	int log = denials_open();
	send_all(gate[1], "", 1);
	close(gate[1]);
	helper_wait(pasta.list, outside, ready[0]);
	pid_t inside = start_passt(o, passt, socket);
	send_all(result, &server, sizeof server);
	send_all(result, &(uint32_t){(uint32_t)pinned_count}, sizeof(uint32_t));
	send_all(result, pinned, pinned_count * sizeof *pinned);
	close(result);
	denials_report(log, inside, outside);
}

/* --- the launcher -------------------------------------------------------------------------------------------------- */

static bool receive(int from, void *data, size_t size)
{
	for (char *at = data; size;) {
		ssize_t got = read(from, at, size);
		if (got <= 0)
			return false;
		at += got;
		size -= (size_t)got;
	}
	return true;
}

pid_t fence_start(const struct options *o, const char *const *passt, int pair[2])
{
	int result[2], status = 0;
	uint32_t count = 0;
	helper_pipe(result);
	pid_t own = getpid(), pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (!pid) {
		close(pair[0]);
		close(result[0]);
		keep(o, own, passt, pair[1], result[1]);
	}
	close(pair[1]);
	close(result[1]);
	bool good = receive(result[0], &server, sizeof server) && receive(result[0], &count, sizeof count) && count <= LOOKUP_MAX;
	if (good && !(pinned = calloc(count + 1, sizeof *pinned)))
		fail(NULL, "out of memory");
	good = good && receive(result[0], pinned, count * sizeof *pinned);
	close(result[0]);
	if (!good) {
		waitpid(pid, &status, 0);
		if (WIFEXITED(status)) /* it has said why */
			exit(EXIT_OWN_ERROR);
		fail(NULL, "cannot start the network: its keeper was killed by signal %d", WTERMSIG(status));
	}
	pinned_count = count;
	return pid;
}

void fence_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to)
{
	if (server && !net->dns_count)
		add(to, "dns=%s", RULES_SERVER);
	for (size_t i = 0; i < pinned_count; i++) {
		char text[LOOKUP_TEXT];
		const struct rule *rule = pinned[i].rule < net->rule_count ? &net->rules[pinned[i].rule] : NULL;
		if (rule && rule->name && !rule->deny)
			add(to, "host=%s %s", lookup_text(&pinned[i], text), rule->name);
	}
}
