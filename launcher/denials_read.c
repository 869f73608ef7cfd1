// SPDX-License-Identifier: Apache-2.0
// The part of denials that reads what a guest has influence on. It allocates nothing.
#include "denials.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ALIGN(n) (((n) + 3u) & ~3u)

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static bool write_destination(const uint8_t *packet, size_t length, char *text)
{
	char address[INET6_ADDRSTRLEN];
	bool six = length && packet[0] >> 4 == 6;
	size_t header = six ? 40 : length ? (packet[0] & 15) * 4u : 0;
	if (length < header || header < 20 || (!six && packet[0] >> 4 != 4))
		return false;
	unsigned protocol = packet[six ? 6 : 9];
	const char *name = protocol == IPPROTO_TCP				   ? "tcp"
			   : protocol == IPPROTO_UDP				   ? "udp"
			   : protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? "icmp"
										   : "protocol";
	inet_ntop(six ? AF_INET6 : AF_INET, packet + (six ? 24 : 16), address, sizeof address);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return snprintf(text, DENIALS_TEXT, "%s %s", name, address) > 0;
	if (length < header + 4)
		return false;
	return snprintf(text, DENIALS_TEXT, six ? "%s [%s]:%u" : "%s %s:%u", name, address, get16(packet + header + 2)) > 0;
}

static void read_packet(const uint8_t *message, size_t length, void (*found)(const char *text))
{
	char text[DENIALS_TEXT];
	size_t at = NLMSG_HDRLEN + ALIGN(sizeof(struct nfgenmsg));
	struct nlattr attribute;
	while (at + sizeof attribute <= length) {
		memcpy(&attribute, message + at, sizeof attribute);
		if (attribute.nla_len < sizeof attribute || attribute.nla_len > length - at)
			return;
		if ((attribute.nla_type & NLA_TYPE_MASK) == NFULA_PAYLOAD &&
		    write_destination(message + at + sizeof attribute, attribute.nla_len - sizeof attribute, text))
			found(text);
		at += ALIGN(attribute.nla_len);
	}
}

void denials_read(const uint8_t *messages, size_t length, void (*found)(const char *text))
{
	struct nlmsghdr header;
	for (size_t at = 0; at + sizeof header <= length; at += ALIGN(header.nlmsg_len)) {
		memcpy(&header, messages + at, sizeof header);
		if (header.nlmsg_len < sizeof header || header.nlmsg_len > length - at)
			return;
		if (header.nlmsg_type == DENIALS_TYPE(NFULNL_MSG_PACKET))
			read_packet(messages + at, header.nlmsg_len, found);
	}
}
