// SPDX-License-Identifier: Apache-2.0
#include "rules.h"

#include <arpa/inet.h>
#include <string.h>

#define SERVER_PORT 53

/* RFC 6052: 64:ff9b::/96, behind which a translator of the host's network reaches IPv4 addresses */
static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};

static bool any_allowed(const struct net *net)
{
	for (size_t i = 0; i < net->rule_count; i++)
		if (!net->rules[i].deny)
			return true;
	return false;
}

static bool in_network(const struct rule *rule, const uint8_t address[4])
{
	for (unsigned bit = 0; bit < rule->prefix; bit++)
		if ((rule->address[bit / 8] ^ address[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

/* Returns true if a rule of this kind names the IPv4 address and the port. */
static bool named(const struct net *net, bool deny, const uint8_t address[4], uint16_t port)
{
	for (size_t i = 0; i < net->rule_count; i++) {
		const struct rule *rule = &net->rules[i];
		if (rule->deny == deny && !rule->name && rule->family == AF_INET && in_network(rule, address) &&
		    (!rule->first || (port >= rule->first && port <= rule->last)))
			return true;
	}
	return false;
}

static bool is_loopback(const struct rule *rule)
{
	return !rule->name && rule->family == AF_INET && rule->prefix >= 8 && rule->address[0] == 127;
}

void rules_loopback(const struct net *net, void (*found)(void *context, uint16_t port), void *context)
{
	static const uint8_t one[] = {127, 0, 0, 1};
	for (size_t i = 0; i < net->rule_count; i++) {
		const struct rule *rule = &net->rules[i];
		if (rule->deny || !is_loopback(rule))
			continue;
		for (unsigned port = rule->first; port <= rule->last; port++) {
			bool before = false;
			for (size_t k = 0; k < i && !before; k++)
				before = !net->rules[k].deny && is_loopback(&net->rules[k]) && port >= net->rules[k].first &&
					 port <= net->rules[k].last;
			if (!before && !named(net, true, one, (uint16_t)port))
				found(context, (uint16_t)port);
		}
	}
}

static bool name_denied(const struct net *net, const struct pinned *pinned, size_t count, const uint8_t address[4])
{
	for (size_t i = 0; i < count; i++) {
		const struct rule *rule = &net->rules[pinned[i].rule];
		if (rule->deny && pinned[i].family == AF_INET && !memcmp(pinned[i].address, address, 4) &&
		    (!rule->first || (rule->first <= SERVER_PORT && rule->last >= SERVER_PORT)))
			return true;
	}
	return false;
}

bool rules_admit_server(const struct net *net, const struct pinned *pinned, size_t count, const struct in_addr *servers,
			size_t server_count)
{
	uint8_t address[4];
	inet_pton(AF_INET, RULES_SERVER, address);
	if (any_allowed(net) && !named(net, false, address, SERVER_PORT))
		return false;
	for (size_t i = 0;; i++) {
		if (named(net, true, address, SERVER_PORT) || name_denied(net, pinned, count, address))
			return false;
		if (i == server_count)
			return true;
		memcpy(address, &servers[i], sizeof address);
	}
}

static void write_rule(FILE *out, const struct rule *rule, int family, const char *address, unsigned prefix)
{
	fprintf(out, "\t\t%s daddr %s/%u", family == AF_INET ? "ip" : "ip6", address, prefix);
	if (rule->first)
		fprintf(out, " meta l4proto { tcp, udp } th dport %u", rule->first);
	if (rule->first < rule->last)
		fprintf(out, "-%u", rule->last);
	fputs(rule->deny ? " jump denied\n" : " accept\n", out);
}

static void write_network(FILE *out, const struct rule *rule, int family, const uint8_t *address, unsigned prefix)
{
	uint8_t behind[16];
	char text[INET6_ADDRSTRLEN];
	inet_ntop(family, address, text, sizeof text);
	write_rule(out, rule, family, text, prefix);
	if (!rule->deny || family != AF_INET)
		return;
	memcpy(behind, nat64, sizeof nat64);
	memcpy(behind + sizeof nat64, address, 4);
	inet_ntop(AF_INET6, behind, text, sizeof text);
	write_rule(out, rule, AF_INET6, text, 96 + prefix);
}

static void write_rules(FILE *out, const struct net *net, bool deny, const struct pinned *pinned, size_t count)
{
	for (size_t i = 0; i < net->rule_count; i++) {
		const struct rule *rule = &net->rules[i];
		if (rule->deny != deny || (is_loopback(rule) && !deny))
			continue;
		if (!rule->name)
			write_network(out, rule, rule->family, rule->address, rule->prefix);
		for (size_t k = 0; rule->name && k < count; k++)
			if (pinned[k].rule == i)
				write_network(out, rule, pinned[k].family, pinned[k].address,
					      pinned[k].family == AF_INET ? 32 : 128);
	}
}

static void write_loopback_port(void *out, uint16_t port)
{
	fprintf(out, "\t\toifname lo ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport %u accept\n", port);
}

void rules_write(FILE *out, const struct net *net, const struct pinned *pinned, size_t count, bool server)
{
	fprintf(out,
		"table inet nabla {\n"
		"\tchain denied {\n"
		"\t\tlog group %d snaplen 64\n"
		"\t\tmeta l4proto tcp reject with tcp reset\n"
		"\t\treject with icmpx type admin-prohibited\n"
		"\t}\n"
		"\tchain output {\n"
		"\t\ttype filter hook output priority filter; policy drop;\n"
		/* answers on published ports; whatever passt begins is new */
		"\t\tct state established,related accept\n"
		"\t\toifname " RULES_DEVICE " icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
		"mld-listener-report, mld2-listener-report } accept\n",
		RULES_LOG_GROUP);
	/* in the namespace: pasta to published ports, and passt to ports of the host's loopback, where pasta listens */
	for (size_t i = 0; i < net->publish_count; i++)
		fprintf(out, "\t\toifname lo %s dport %u accept\n", net->publish[i].udp ? "udp" : "tcp",
			net->publish[i].host_port);
	rules_loopback(net, write_loopback_port, out);
	fputs("\t\toifname != " RULES_DEVICE " jump denied\n", out);
	/* the name server, and no further port where another host may be */
	if (server)
		fputs("\t\tip daddr " RULES_SERVER " meta l4proto { tcp, udp } th dport 53 accept\n", out);
	fputs("\t\tip daddr " RULES_SERVER " jump denied\n", out);
	write_rules(out, net, true, pinned, count);
	write_rules(out, net, false, pinned, count);
	fputs(any_allowed(net) ? "\t\tjump denied\n" : "\t\taccept\n", out);
	fputs("\t}\n}\n", out);
}
