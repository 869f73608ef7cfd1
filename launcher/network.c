// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include "descriptors.h"
#include "diag.h"
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TUN "/dev/net/tun"
#define USUAL_MTU 1500

static int device_mtu; /* of the host's end; 0: USUAL_MTU */

/* Reads one property of a network interface. */
static bool get_property(unsigned long what, struct ifreq *request)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool good = fd >= 0 && !ioctl(fd, (int)what, request);
	if (fd >= 0)
		close(fd);
	return good;
}

/* The guest uses the MTU of the host's end: a smaller one is slow, a larger one loses frames. */
static void read_mtu(const char *interface)
{
	struct ifreq request = {0};
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (get_property(SIOCGIFMTU, &request) && request.ifr_mtu != USUAL_MTU)
		device_mtu = request.ifr_mtu;
}

static int open_tap(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	if (strlen(name) >= IFNAMSIZ)
		fail(NULL, "--net tap: '%s' is too long for the name of an interface", name);
	strcpy(request.ifr_name, name);
	/* TUNSETIFF by root would create a new interface that nothing is connected to. */
	if (!get_property(SIOCGIFINDEX, &request))
		fail("create it: ip tuntap add NAME mode tap user USER && ip link set NAME up",
		     "this host has no network interface %s", name);
	memset(&request, 0, sizeof request);
	strcpy(request.ifr_name, name);
	request.ifr_flags = IFF_TAP | IFF_NO_PI;

	int fd = open(TUN, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fail(errno == ENOENT ? "load the module: modprobe tun" : "use --net user", "cannot open " TUN ": %s",
		     strerror(errno));
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		const char *hint = errno == EPERM    ? "it must belong to you: ip tuntap add NAME mode tap user USER"
				   : errno == EBUSY  ? "another program uses it"
				   : errno == EINVAL ? "it is not a tap interface"
						     : NULL;
		fail(hint, "cannot attach to network interface %s: %s", name, strerror(errno));
	}
	if (get_property(SIOCGIFFLAGS, &request) && !(request.ifr_flags & IFF_UP))
		note("warning: network interface %s is down (ip link set %s up)", name, name);
	read_mtu(name);
	return fd_move_high(fd);
}

static void check_tap(int number, int fd)
{
	struct ifreq request = {0};
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		fail("use a tap device or a connected Unix socket",
		     "--net: descriptor %d is neither a tap device nor a socket", number);
	if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_NO_PI) || request.ifr_flags & IFF_VNET_HDR)
		fail("open it with IFF_TAP and IFF_NO_PI, without IFF_VNET_HDR",
		     "--net: descriptor %d, interface %.*s, does not carry plain Ethernet frames", number, IFNAMSIZ,
		     request.ifr_name);
	read_mtu(request.ifr_name);
}

/* Returns true for a stream socket, where each frame is preceded by its length. */
static bool check_socket(int number, int fd)
{
	int domain = 0, type = 0;
	struct sockaddr_storage peer;
	socklen_t length = sizeof domain;
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
	length = sizeof type;
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
	if (domain != AF_UNIX)
		fail("use a tap device or a connected Unix socket", "--net: descriptor %d is not a Unix socket",
		     number);
	length = sizeof peer;
	if (getpeername(fd, (struct sockaddr *)&peer, &length) < 0)
		fail(NULL, "--net: the socket on descriptor %d is not connected", number);
	return type == SOCK_STREAM;
}

static void open_inherited(int number, struct network *network)
{
	struct stat st;
	if (fstat(number, &st) < 0)
		fail("start nabla-run with this descriptor open", "--net: descriptor %d: %s", number, strerror(errno));
	if (S_ISSOCK(st.st_mode))
		network->stream = check_socket(number, number);
	else
		check_tap(number, number);
	network->fd = fd_copy_high(number);
}

void network_open(const struct options *o, struct network *network)
{
	*network = (struct network){.fd = -1};
	switch (o->net.kind) {
	case NET_NONE:
		break;
	case NET_TAP:
		network->fd = open_tap(o->net.tap);
		break;
	case NET_FD:
		open_inherited(o->net.fd, network);
		break;
	case NET_USER:
		network->stream = true;
		network->helper = helper_start(o, &network->fd);
	}
}

const char *const *network_command(const struct options *o)
{
	return o->net.kind == NET_USER ? helper_command(&o->net) : NULL;
}

void network_settings(const struct options *o, void (*add)(void *to, const char *format, ...), void *to)
{
	const struct net *net = &o->net;
	if (net->kind == NET_USER) {
		helper_settings(net, add, to);
		return;
	}
	if (net->address)
		add(to, "address=%s/%u", net->address, net->prefix);
	if (net->gateway)
		add(to, "gateway=%s", net->gateway);
	for (size_t i = 0; i < net->dns_count; i++)
		add(to, "dns=%s", net->dns[i]);
	if (device_mtu)
		add(to, "mtu=%d", device_mtu);
}

void network_close(struct network *network)
{
	if (network->fd >= 0)
		close(network->fd);
	network->fd = -1;
	if (network->helper)
		helper_end(network->helper);
	network->helper = 0;
}
