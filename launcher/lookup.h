/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up the names of the network rules, once: the addresses are pinned for the life of the VM. */
#ifndef NABLA_LOOKUP_H
#define NABLA_LOOKUP_H

#include "rules.h"

#define LOOKUP_MAX 4096 /* addresses of all names */
#define LOOKUP_TEXT 48

/*
 * Returns the addresses of all names, and their number in *count. Fails if a name has none. An allowed name never has an address
 * of the host's loopback, of a link or of a group, whatever the name server answers: nobody but the user may open these.
 */
struct pinned *lookup_names(const struct net *net, size_t *count);

/* Stores the IPv4 addresses of the host's name servers, at most `most`, and returns their number. */
size_t lookup_servers(struct in_addr *servers, size_t most);

/* Writes the address to text, LOOKUP_TEXT bytes, and returns it. */
const char *lookup_text(const struct pinned *address, char *text);

#endif
