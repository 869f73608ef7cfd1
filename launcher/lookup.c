// SPDX-License-Identifier: Apache-2.0
#include "lookup.h"

#include "diag.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const char *lookup_text(const struct pinned *address, char *text)
{
	return inet_ntop(address->family, address->address, text, LOOKUP_TEXT);
}

size_t lookup_servers(struct in_addr *servers, size_t most)
{
	char line[512], address[64];
	size_t count = 0;
	FILE *file = fopen("/etc/resolv.conf", "re");
	while (file && count < most && fgets(line, sizeof line, file))
		if (sscanf(line, " nameserver %63s", address) == 1 && inet_pton(AF_INET, address, &servers[count]) == 1)
			count++;
	if (file)
		fclose(file);
	return count;
}

static bool is_special4(const uint8_t *a)
{
	return !a[0] || a[0] == 127 || (a[0] == 169 && a[1] == 254) || a[0] >= 224;
}

static bool is_special6(const struct in6_addr *a)
{
	return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LINKLOCAL(a) || IN6_IS_ADDR_MULTICAST(a) ||
	       IN6_IS_ADDR_V4MAPPED(a);
}

static bool convert(const struct addrinfo *answer, struct pinned *address)
{
	address->family = answer->ai_family;
	if (answer->ai_family == AF_INET) {
		memcpy(address->address, &((const struct sockaddr_in *)(const void *)answer->ai_addr)->sin_addr, 4);
		return true;
	}
	if (answer->ai_family == AF_INET6)
		memcpy(address->address, &((const struct sockaddr_in6 *)(const void *)answer->ai_addr)->sin6_addr, 16);
	return answer->ai_family == AF_INET6;
}

static bool is_special(const struct pinned *address)
{
	struct in6_addr six;
	memcpy(&six, address->address, sizeof six);
	return address->family == AF_INET ? is_special4(address->address) : is_special6(&six);
}

struct pinned *lookup_names(const struct net *net, size_t *count)
{
	static struct pinned all[LOOKUP_MAX];
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	*count = 0;
	for (size_t i = 0; i < net->rule_count; i++) {
		const struct rule *rule = &net->rules[i];
		const char *option = rule->deny ? "--deny" : "--allow";
		struct addrinfo *answers;
		if (!rule->name)
			continue;
		int error = getaddrinfo(rule->name, NULL, &hints, &answers);
		if (error)
			fail("check the name and the host's name servers, or write an address", "%s: cannot look up %s: %s", option,
			     rule->name, gai_strerror(error));
		for (const struct addrinfo *a = answers; a; a = a->ai_next) {
			struct pinned address = {.rule = (uint32_t)i};
			char text[LOOKUP_TEXT];
			if (!convert(a, &address))
				continue;
			if (!rule->deny && is_special(&address))
				fail("if you mean it, write the address instead of the name",
				     "--allow: %s has the address %s, of this host or link", rule->name, lookup_text(&address, text));
			if (*count == LOOKUP_MAX)
				fail("write networks instead of names", "%s: the names have more than %d addresses", option, LOOKUP_MAX);
			all[(*count)++] = address;
		}
		freeaddrinfo(answers);
	}
	return all;
}
