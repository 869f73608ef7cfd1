// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DEVICE "eth0"
#define PREFIX_MAX 32

/* Parses a decimal number of at most five digits. Returns -1 on a syntax error. */
static int parse_number(const char *text)
{
	int value = 0, digits = 0;
	for (; *text >= '0' && *text <= '9'; text++, digits++)
		value = digits < 5 ? value * 10 + *text - '0' : value;
	return *text || !digits || digits > 5 ? -1 : value;
}

static struct sockaddr inet_address(struct in_addr address)
{
	union {
		struct sockaddr_in in;
		struct sockaddr any;
	} u = {.in = {.sin_family = AF_INET, .sin_addr = address}};
	return u.any;
}

/* Parses "A.B.C.D/N". */
static bool parse_address(const char *text, struct in_addr *address, struct in_addr *mask)
{
	char plain[INET_ADDRSTRLEN];
	size_t length = strcspn(text, "/");
	int prefix = text[length] ? parse_number(text + length + 1) : -1;
	if (length >= sizeof plain || prefix < 0 || prefix > PREFIX_MAX)
		return false;
	memcpy(plain, text, length);
	plain[length] = '\0';
	mask->s_addr = htonl(prefix ? UINT32_MAX << (PREFIX_MAX - prefix) : 0);
	return inet_pton(AF_INET, plain, address) == 1;
}

static bool configure(int fd, unsigned long command, void *request, const char *purpose)
{
	if (!ioctl(fd, (int)command, request))
		return true;
	log_error(purpose, strerror(errno));
	return false;
}

/* The first frame announces the hardware address to the other end, so that published ports work at once. */
static void enable_arp_notify(void)
{
	int fd = open("/proc/sys/net/ipv4/conf/" DEVICE "/arp_notify", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) < 0)
		log_error(DEVICE ": arp_notify", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* The order matters: setting the MTU or an address later would remove the route. */
static void start_device(int fd, const struct settings *s)
{
	struct ifreq request = {.ifr_name = DEVICE};
	struct in_addr address, mask;
	if (s->mtu) {
		request.ifr_mtu = parse_number(s->mtu);
		configure(fd, SIOCSIFMTU, &request, DEVICE ": mtu");
	}
	if (s->address) {
		if (!parse_address(s->address, &address, &mask)) {
			log_error(s->address, "not an address with a prefix length, A.B.C.D/N");
			return;
		}
		request.ifr_addr = inet_address(address);
		if (!configure(fd, SIOCSIFADDR, &request, DEVICE))
			return;
		request.ifr_netmask = inet_address(mask);
		configure(fd, SIOCSIFNETMASK, &request, DEVICE ": prefix");
		enable_arp_notify();
	}
	request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
	if (!configure(fd, SIOCSIFFLAGS, &request, DEVICE) || !s->gateway)
		return;
	if (inet_pton(AF_INET, s->gateway, &address) != 1) {
		log_error(s->gateway, "not an address, A.B.C.D");
		return;
	}
	struct in_addr any = {INADDR_ANY};
	struct rtentry route = {
		.rt_dst = inet_address(any),
		.rt_genmask = inet_address(any),
		.rt_gateway = inet_address(address),
		.rt_flags = RTF_UP | RTF_GATEWAY,
		.rt_dev = (char[]){DEVICE},
	};
	configure(fd, SIOCADDRT, &route, "gateway");
}

void start_loopback(void)
{
	/* The kernel assigns 127.0.0.1 and ::1 itself. */
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0 && errno != ENODEV)
		log_error("lo", strerror(errno));
	close(fd);
}

/* Copies the image's file, which may be missing, to fd. */
static bool copy_file(const char *path, int fd)
{
	char data[4096];
	ssize_t got = 0;
	bool good = true;
	int from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	while (from >= 0 && good && (got = read(from, data, sizeof data)) > 0)
		good = write(fd, data, (size_t)got) == got;
	if (from >= 0)
		close(from);
	return good;
}

/* Writes a line for each word to the copy, behind the lines of the file if `keep` is set. */
static bool write_lines(const char *path, const char *copy, char *before, char **words, bool keep)
{
	static char newline[] = "\n";
	int fd = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	bool good = !keep || (copy_file(path, fd) && write(fd, newline, 1) == 1);
	for (; *words; words++) {
		struct iovec line[] = {{before, strlen(before)}, {*words, strlen(*words)}, {newline, 1}};
		good = writev(fd, line, sizeof line / sizeof *line) > 0 && good;
	}
	close(fd);
	return good;
}

/* The copy is mounted over the file of the image, which stays unchanged and may be read-only. */
static void set_file(const char *path, const char *copy, char *before, char **words, bool keep)
{
	if (!write_lines(path, copy, before, words, keep)) {
		log_error(copy, strerror(errno));
		return;
	}
	if (!mount(copy, path, NULL, MS_BIND, NULL))
		return;
	/* Without a mount point, create an empty file; through a dangling link, its target. */
	int fd = errno == ENOENT ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
	if (fd >= 0)
		close(fd);
	if (fd < 0 || mount(copy, path, NULL, MS_BIND, NULL) < 0)
		log_error(path, strerror(errno));
}

void start_network(const struct settings *s)
{
	int fd = s->address || s->gateway || s->mtu ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
	if (fd >= 0) {
		start_device(fd, s);
		close(fd);
	}
	if (*s->servers)
		set_file("/etc/resolv.conf", "/run/resolv.conf", (char[]){"nameserver "}, s->servers, false);
	if (*s->hosts)
		set_file("/etc/hosts", "/run/hosts", (char[]){""}, s->hosts, true);
}
