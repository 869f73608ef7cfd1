// SPDX-License-Identifier: Apache-2.0
// Parses the values of the network options.
#include "parse.h"

#include "diag.h"

#include <arpa/inet.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX 65535
#define DNS_MAX 3 /* MAXNS of the C library */
#define PUBLISH_MAX 64

static const char *skip_prefix(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);
	return strncmp(text, prefix, n) ? NULL : text + n;
}

PARSE(net)
{
	const char *rest, *end;
	uint64_t number = 0;
	struct net *net = &o->net;
	if (!strcmp(value, "none")) {
		net->kind = NET_NONE;
	} else if (!strcmp(value, "user")) {
		net->kind = NET_USER;
	} else if ((rest = skip_prefix(value, "tap="))) {
		if (!*rest || strlen(rest) >= IFNAMSIZ || strpbrk(rest, "/ \t\n%:"))
			fail(NULL, "--net: '%s' is not a network interface name", rest);
		net->kind = NET_TAP;
		net->tap = rest;
	} else if ((rest = skip_prefix(value, "fd="))) {
		if (!parse_number(rest, INT_MAX, &number, &end) || *end)
			fail("write the number of an open descriptor", "--net: '%s' is not a descriptor", rest);
		if (number < 3)
			fail(NULL, "--net: descriptor %s is the console's", rest);
		net->kind = NET_FD;
		net->fd = (int)number;
	} else {
		fail("none, tap=INTERFACE, fd=NUMBER or user", "--net: '%s' is not a kind of network", value);
	}
	o->net_given = true;
}

static bool is_address(const char *text)
{
	struct in_addr address;
	return inet_pton(AF_INET, text, &address) == 1;
}

/* Splits the text at the last separator and returns the part after it, or NULL if there is none. */
static char *cut_at_last(char *text, char separator)
{
	char *at = strrchr(text, separator);
	if (at)
		*at++ = '\0';
	return at;
}

static bool is_port(const char *text, uint16_t *port)
{
	uint64_t number = 0;
	const char *end;
	if (!text || !parse_number(text, PORT_MAX, &number, &end) || *end || !number)
		return false;
	*port = (uint16_t)number;
	return true;
}

static char *copy_of(const char *text)
{
	char *copy = strdup(text);
	if (!copy)
		fail(NULL, "out of memory");
	return copy;
}

PARSE(publish)
{
	const char *hint =
		"write [ADDRESS:]PORT:GUEST-PORT[/udp], ports from 1 to 65535: 8080:80, 127.0.0.1:5353:53/udp";
	struct publish p = {NULL, 0, 0, false};
	struct net *net = &o->net;
	char *text = copy_of(value);
	char *protocol = cut_at_last(text, '/');
	char *guest = cut_at_last(text, ':');
	char *host = guest ? cut_at_last(text, ':') : NULL;
	if (host)
		p.address = text;
	else
		host = text;
	p.udp = protocol && !strcmp(protocol, "udp");
	if ((protocol && !p.udp && strcmp(protocol, "tcp")) || !is_port(host, &p.host_port) ||
	    !is_port(guest, &p.guest_port))
		fail(hint, "--publish: '%s' is not a pair of ports", value);
	if (p.address && !is_address(p.address))
		fail(hint, "--publish: '%s' is not an IPv4 address", p.address);
	/* Even with different addresses: passt maps each port number once. */
	for (size_t i = 0; i < net->publish_count; i++)
		if (net->publish[i].udp == p.udp && net->publish[i].host_port == p.host_port)
			fail(NULL, "--publish: port %u is published twice", p.host_port);
	if (net->publish_count == PUBLISH_MAX)
		fail(NULL, "--publish: at most %d ports can be published", PUBLISH_MAX);
	net->publish = array_grow(net->publish, &net->publish_count, sizeof p);
	net->publish[net->publish_count - 1] = p;
}

PARSE(dns)
{
	struct net *net = &o->net;
	if (!is_address(value))
		fail(NULL, "--dns: '%s' is not an IPv4 address", value);
	if (net->dns_count == DNS_MAX)
		fail(NULL, "--dns: at most %d name servers are supported", DNS_MAX);
	net->dns = array_grow(net->dns, &net->dns_count, sizeof *net->dns);
	net->dns[net->dns_count - 1] = value;
}

PARSE(ip)
{
	const char *hint = "write ADDRESS/PREFIX or ADDRESS/PREFIX,GATEWAY: 10.0.0.2/24,10.0.0.1";
	char *text = copy_of(value);
	char *gateway = cut_at_last(text, ',');
	char *length = cut_at_last(text, '/');
	uint64_t prefix = 0;
	const char *end;
	if (!is_address(text) || !length || !parse_number(length, 32, &prefix, &end) || *end || !prefix)
		fail(hint, "--ip: '%s' is not an IPv4 address with a prefix length", value);
	if (gateway && !is_address(gateway))
		fail(hint, "--ip: gateway '%s' is not an IPv4 address", gateway);
	o->net.address = text;
	o->net.prefix = (unsigned)prefix;
	o->net.gateway = gateway;
}
