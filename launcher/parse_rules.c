// SPDX-License-Identifier: Apache-2.0
// Parses what the guest may reach: HOST|CIDR[:PORT[-PORT]].
#include "parse.h"

#include "diag.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX 65535
#define RULES_MAX 256
#define NAME_MAX_LENGTH 253
#define HINT "write HOST, ADDRESS or ADDRESS/PREFIX, with or without :PORT: example.org:443, 192.0.2.0/24, [2001:db8::1]:80"
#define LOOPBACK_HINT "write 127.0.0.1:PORT; the guest reaches it by its gateway"
#define LOOPBACK_PORTS_MAX 64

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:0:0/96, IPv4 in IPv6 */

static const char *option_of(const struct rule *rule)
{
	return rule->deny ? "--deny" : "--allow";
}

static void parse_ports(struct rule *rule, const char *text)
{
	uint64_t first = 0, last = 0;
	const char *end;
	bool good = parse_number(text, PORT_MAX, &first, &end);
	last = first;
	if (good && *end == '-')
		good = parse_number(end + 1, PORT_MAX, &last, &end);
	if (!good || *end || !first || last < first)
		fail("write a port from 1 to 65535, or a range: 8000-8080", "%s: '%s' is not a port", option_of(rule), text);
	rule->first = (uint16_t)first;
	rule->last = (uint16_t)last;
}

static bool is_name(const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", rest[] = "0123456789-_.";
	size_t length = strlen(text), good = 0;
	const char *label = strrchr(text, '.');
	for (const char *c = text; *c; c++)
		good += strchr(letters, *c) || strchr(rest, *c);
	/* 10.1 and 0x7f.1 are no names, whatever the C library makes of them */
	label = label ? label + 1 : text;
	return length && length <= NAME_MAX_LENGTH && good == length && *text != '-' && *text != '.' && !strstr(text, "..") &&
	       strchr(letters, *label) && *label;
}

static bool bits_beyond(const struct rule *rule)
{
	unsigned size = rule->family == AF_INET ? 32 : 128;
	for (unsigned bit = rule->prefix; bit < size; bit++)
		if (rule->address[bit / 8] & 0x80 >> bit % 8)
			return true;
	return false;
}

static void parse_network(struct rule *rule, const char *address, const char *prefix)
{
	uint64_t bits = rule->family == AF_INET ? 32 : 128;
	const char *end = "";
	if (prefix && (!parse_number(prefix, bits, &bits, &end) || *end))
		fail(HINT, "%s: '%s' is not a prefix length", option_of(rule), prefix);
	rule->prefix = (unsigned)bits;
	if (bits_beyond(rule))
		fail("write the first address of the network, or leave out the prefix length",
		     "%s: %s has bits beyond its prefix length %u", option_of(rule), address, rule->prefix);
	if (rule->family == AF_INET6 && rule->prefix >= 96 && !memcmp(rule->address, mapped, sizeof mapped)) {
		memmove(rule->address, rule->address + sizeof mapped, 4);
		rule->family = AF_INET;
		rule->prefix -= 96;
	}
}

/* No network contains the loopback addresses: they are the host's own. */
static void check_loopback(const struct rule *rule)
{
	static const uint8_t one4[] = {127, 0, 0, 1}, one6[16] = {[15] = 1};
	bool four = rule->family == AF_INET;
	bool inside = four ? rule->prefix >= 8 && rule->address[0] == 127 : rule->prefix == 128 && !memcmp(rule->address, one6, 16);
	if (rule->deny || !inside)
		return;
	if (!four || rule->prefix != 32 || memcmp(rule->address, one4, 4))
		fail(LOOPBACK_HINT, "--allow: of the host's loopback, the guest can reach 127.0.0.1 only, not %s", rule->text);
	if (!rule->first || rule->last - rule->first >= LOOPBACK_PORTS_MAX)
		fail(LOOPBACK_HINT, "--allow: '%s' needs a port, or at most %d of them, as it is the host's loopback", rule->text,
		     LOOPBACK_PORTS_MAX);
}

/* Cuts the text into address or name, prefix length and ports. IPv6 without brackets has no port. */
static char *cut(char *text, char **prefix, char **ports, bool *brackets)
{
	char *address = text, *rest = text;
	*prefix = *ports = NULL;
	*brackets = *text == '[';
	if (*brackets) {
		address++;
		rest = strchr(text, ']');
		if (!rest || (rest[1] && rest[1] != '/' && rest[1] != ':'))
			return NULL;
		*rest++ = '\0';
	}
	char *colon = strrchr(rest, ':');
	if (colon && (*brackets || strchr(rest, ':') == colon)) {
		*colon = '\0';
		*ports = colon + 1;
	}
	char *slash = strchr(rest, '/');
	if (slash) {
		*slash = '\0';
		*prefix = slash + 1;
	}
	return address;
}

static void parse_rule(struct options *o, const char *value, bool deny)
{
	struct rule rule = {.text = value, .deny = deny};
	struct net *net = &o->net;
	char *copy = strdup(value), *prefix, *ports;
	bool brackets;
	if (!copy)
		fail(NULL, "out of memory");
	char *address = cut(copy, &prefix, &ports, &brackets);
	if (!address)
		fail(HINT, "%s: '%s' is not a host or network", option_of(&rule), value);
	if (ports)
		parse_ports(&rule, ports);
	if (!brackets && (inet_pton(AF_INET, address, rule.address) == 1 || !strcmp(address, "localhost"))) {
		if (!strcmp(address, "localhost"))
			memcpy(rule.address, (const uint8_t[]){127, 0, 0, 1}, 4);
		rule.family = AF_INET;
	} else if (inet_pton(AF_INET6, address, rule.address) == 1) {
		rule.family = AF_INET6;
	} else if (strchr(address, '*')) {
		fail("name each host, or a network", "%s: '%s' has a wildcard", option_of(&rule), value);
	} else if (brackets || prefix || !is_name(address)) {
		fail(HINT, "%s: '%s' is not a host or network", option_of(&rule), value);
	} else {
		rule.name = address;
	}
	if (!rule.name) {
		parse_network(&rule, address, prefix);
		check_loopback(&rule);
	}
	if (net->rule_count == RULES_MAX)
		fail("name networks instead of addresses", "%s: at most %d rules are supported", option_of(&rule), RULES_MAX);
	net->rules = array_grow(net->rules, &net->rule_count, sizeof rule);
	net->rules[net->rule_count - 1] = rule;
}

PARSE(allow)
{
	parse_rule(o, value, false);
}

PARSE(deny)
{
	parse_rule(o, value, true);
}
