// SPDX-License-Identifier: Apache-2.0
#include "helper.h"

#include "descriptors.h"
#include "diag.h"
#include "fence.h"
#include "limits.h"
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The guest's default addresses; the gateway's address stands for the host's loopback interface. */
#define ADDRESS "10.0.2.15"
#define PREFIX 24
#define GATEWAY "10.0.2.2"
#define HOST_ADDRESS "127.0.0.1"    /* by default, only the host itself reaches published ports */

/* Descriptors of passt. */
#define SOCKET_FD 3
#define READY_FD 1 /* standard output: recent versions close descriptors that no option names */
#define TEXT(number) #number
#define DECIMAL(number) TEXT(number)

#define BUFFER (4 << 20)  /* requested socket buffer; the host may grant less */
#define MESSAGES_MAX 4096 /* stored part of passt's messages */
#define END_MS 1000

#define REQUIREMENTS "user networking needs passt and user namespaces"
#define ALTERNATIVES "or use --net tap=INTERFACE or --net fd=NUMBER"

static int messages_fd = -1; /* passt's standard error, a memfd */

char *format_text(const char *format, ...)
{
	va_list args;
	char *text;
	va_start(args, format);
	int length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0)
		fail(NULL, "out of memory");
	return text;
}

static const char *address_of(const struct publish *p)
{
	return p->address ? p->address : HOST_ADDRESS;
}

static const char *gateway_of(const struct net *net)
{
	return net->address ? net->gateway : GATEWAY;
}

static const char *server_of(const struct net *net)
{
	return net->address ? gateway_of(net) : RULES_SERVER;
}

const char *const *helper_command(const struct net *net)
{
	static const char *const fixed[] = {
		"passt", "--foreground", "--quiet", "--ipv4-only", "--fd", DECIMAL(SOCKET_FD),
		/* passt writes this file when it is ready. */
		"--pid", "/proc/self/fd/" DECIMAL(READY_FD),
		/* With these, passt needs no default route, so it works on a host without a network. */
		"--interface", "lo", "--mac-addr", HELPER_MAC, "--mtu", HELPER_MTU, "--search", "none",
	};
	size_t count = sizeof fixed / sizeof *fixed;
	const char **words = calloc(count + 8 + 2 * net->publish_count + 1, sizeof *words);
	if (!words)
		fail(NULL, "out of memory");
	memcpy(words, fixed, sizeof fixed);
	words[count++] = "--address";
	words[count++] = net->address ? net->address : ADDRESS;
	words[count++] = "--netmask";
	words[count++] = format_text("%u", net->address ? net->prefix : PREFIX);
	words[count++] = "--gateway";
	words[count++] = gateway_of(net);
	if (!net->rule_count) {
		words[count++] = "--dns-forward";
		words[count++] = server_of(net);
	}
	for (size_t i = 0; i < net->publish_count; i++) {
		const struct publish *p = &net->publish[i];
		words[count++] = p->udp ? "--udp-ports" : "--tcp-ports";
		words[count++] = format_text("%s/%u:%u", net->rule_count ? "0.0.0.0" : address_of(p), p->host_port,
					     p->guest_port);
	}
	return words;
}

void helper_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to)
{
	add(to, "address=%s/%u", net->address ? net->address : ADDRESS, net->address ? net->prefix : PREFIX);
	add(to, "gateway=%s", gateway_of(net));
	if (!net->dns_count && !net->rule_count)
		add(to, "dns=%s", server_of(net));
	for (size_t i = 0; i < net->dns_count; i++)
		add(to, "dns=%s", net->dns[i]);
	add(to, "mtu=%s", HELPER_MTU);
	if (net->rule_count)
		fence_settings(net, add, to);
}

/* passt's own message for an unusable port does not say why. */
static void check_port(const struct publish *p)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(p->host_port)};
	inet_pton(AF_INET, address_of(p), &address.sin_addr);
	int fd = socket(AF_INET, (p->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail(NULL, "cannot open a socket: %s", strerror(errno));
	/* Ignore connections in TIME_WAIT. Not for UDP, where SO_REUSEADDR would share the port. */
	if (!p->udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		const char *hint = errno == EADDRINUSE	    ? "another program uses it; choose another port"
				   : errno == EACCES	    ? "ports below 1024 are reserved for root; choose a higher one"
				   : errno == EADDRNOTAVAIL ? "this host has no such address"
							    : NULL;
		fail(hint, "--publish: %s port %u of %s: %s", p->udp ? "UDP" : "TCP", p->host_port, address_of(p),
		     strerror(errno));
	}
	close(fd);
}

static void check_ports(const struct net *net)
{
	for (size_t i = 0; i < net->publish_count; i++)
		check_port(&net->publish[i]);
}

/* The file cannot grow, because nothing reads it while the VM runs. */
void helper_messages(void)
{
	int fd = memfd_create("helper", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, MESSAGES_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) < 0)
		fail(NULL, "cannot create a file in memory: %s", strerror(errno));
	messages_fd = fd_move_high(fd);
}

/* Returns the most specific line: passt also prints general messages and complains about its log. */
const char *helper_message(void)
{
	static char all[MESSAGES_MAX + 1];
	const char *best = "no reason given";
	ssize_t length = pread(messages_fd, all, MESSAGES_MAX, 0);
	all[length > 0 ? length : 0] = '\0';
	for (char *line = strtok(all, "\n"); line; line = strtok(NULL, "\n")) {
		if (!strncmp(line, "Failed to send", 14) || !strncmp(line, "Failed to sandbox", 17) ||
		    !strncmp(line, "Don't run as root", 17))
			continue;
		best = line;
		if (strstr(line, "Error: ")) /* nft shows the place below */
			break;
	}
	return best;
}

static void move_fd(int fd, int number)
{
	if (dup2(fd, number) < 0)
		_exit(EXIT_OWN_ERROR);
}

void helper_streams(int input)
{
	move_fd(input, STDIN_FILENO);
	move_fd(messages_fd, STDOUT_FILENO);
	move_fd(messages_fd, STDERR_FILENO);
	close_range_of(STDERR_FILENO + 1, ~0u);
}

void helper_tie(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_OWN_ERROR);
}

/* A guest can keep passt busy: by traffic, and passt of 2023 forever by frames with a wrong length. */
_Noreturn void helper_exec(const struct options *o, pid_t parent, const char *const *words, int socket, int ready)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	/* A new session: the terminal's signals must not end passt, which lives as long as the socket. */
	setsid();
	helper_tie(parent);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!limit_processor_time(o))
		_exit(EXIT_OWN_ERROR);
	nice(o->nice);
	move_fd(null, STDIN_FILENO);
	move_fd(ready, READY_FD);
	move_fd(messages_fd, STDERR_FILENO);
	if (socket >= 0)
		move_fd(socket, SOCKET_FD);
	close_range_of(socket >= 0 ? SOCKET_FD + 1 : SOCKET_FD, ~0u);
	execvp(words[0], (char *const *)words);
	dprintf(STDERR_FILENO, "%s\n", errno == ENOENT ? "not found" : strerror(errno));
	_exit(EXIT_OWN_ERROR);
}

void helper_wait(const char *const *words, pid_t pid, int ready)
{
	char byte;
	struct pollfd wait = {.fd = ready, .events = POLLIN};
	int events = poll(&wait, 1, HELPER_START_MS);
	ssize_t got = events > 0 ? read(ready, &byte, 1) : 0;
	close(ready);
	if (got == 1)
		return;
	if (events <= 0) {
		kill(pid, SIGKILL);
		fail(NULL, "cannot start the network: %s is not ready after %d s", words[0], HELPER_START_MS / 1000);
	}
	waitpid(pid, NULL, 0);
	const char *why = helper_message();
	if (!strcmp(why, "not found"))
		fail("install the package passt, " ALTERNATIVES, REQUIREMENTS ": the program %s was not found", words[0]);
	if (strstr(why, "user namespace") || !strncmp(why, "unshare", 7) || !strncmp(why, "mount", 5) ||
	    !strncmp(why, "pivot_root", 10))
		fail("allow user namespaces on this host, " ALTERNATIVES, REQUIREMENTS ": %s: %s", words[0], why);
	if (strstr(why, "/dev/net/tun") || strstr(why, "tun socket"))
		fail("give this user access to /dev/net/tun, or leave out --allow and --deny",
		     "cannot start the network: %s: %s", words[0], why);
	fail(NULL, "cannot start the network: %s: %s", words[0], why);
}

void helper_pipe(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(NULL, "cannot create a pipe: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		ends[i] = fd_move_high(ends[i]);
	/* passt opens it by name, as the user nobody if root started it. */
	fchmod(ends[1], 0622);
}

pid_t helper_start(const struct options *o, int *fd)
{
	const struct net *net = &o->net;
	int pair[2], ready[2];
	const char *const *words = helper_command(net);
	check_ports(net);
	helper_messages();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		fail(NULL, "cannot create a socket pair: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		pair[i] = fd_move_high(pair[i]);
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &(int){BUFFER}, sizeof(int));
	}
	*fd = pair[0];
	if (net->rule_count)
		return fence_start(o, words, pair);
	helper_pipe(ready);
	pid_t own = getpid(), pid = fork();
	if (pid < 0)
		fail(NULL, "cannot start a process: %s", strerror(errno));
	if (pid == 0)
		helper_exec(o, own, words, pair[1], ready[1]);
	close(pair[1]);
	close(ready[1]);
	helper_wait(words, pid, ready[0]);
	return pid;
}

void helper_end(pid_t helper)
{
	/* passt exits when the socket closes. SIGKILL is for a stuck one, and may fail after privileges were dropped. */
	for (int ms = 0; ms < END_MS; ms++) {
		if (waitpid(helper, NULL, WNOHANG) != 0)
			return;
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
	if (!kill(helper, SIGKILL))
		waitpid(helper, NULL, 0);
}
