/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network rules, --allow and --deny, as a table of nftables for a network namespace whose only programs are passt, which
 * connects for the guest, and pasta, which connects the namespace. A rule of --deny always wins.
 */
#ifndef NABLA_RULES_H
#define NABLA_RULES_H

#include "options.h"

#include <netinet/in.h>
#include <stdio.h>

#define RULES_DEVICE "gate0" /* pasta's device in the namespace */
#define RULES_LOG_GROUP 1    /* of nfnetlink_log, where denied packets go */
#define RULES_SERVER "10.0.2.3" /* pasta answers for it with the host's name server */

/* An address of a rule's host. */
struct pinned {
	uint32_t rule; /* its index */
	int32_t family;
	uint8_t address[16];
};

/* Writes the table. pinned: the addresses of all names; server: may the guest ask the host's name server? */
void rules_write(FILE *out, const struct net *net, const struct pinned *pinned, size_t count, bool server);

/* Calls found() for each port of the host's loopback that the guest may reach. */
void rules_loopback(const struct net *net, void (*found)(void *context, uint16_t port), void *context);

/*
 * Returns true if the guest may ask the host's name server by RULES_SERVER: if this address is allowed, and neither it nor one of
 * the host's servers is denied.
 */
bool rules_admit_server(const struct net *net, const struct pinned *pinned, size_t count, const struct in_addr *servers,
			size_t server_count);

#endif
