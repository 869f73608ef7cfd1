/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for. */
#ifndef NABLA_OPTIONS_H
#define NABLA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DISKS_MAX 8 /* the root image among them */

struct disk {
	const char *path;
	bool read_only;
	bool cow; /* the guest's changes vanish with it */
};

enum net_kind {
	NET_NONE,
	NET_TAP,  /* an interface of the host */
	NET_FD,   /* a descriptor of our caller's */
	NET_USER, /* a helper that needs no privilege */
};

struct publish {
	const char *address; /* of the host, dotted; NULL: all */
	uint16_t host_port;
	uint16_t guest_port;
	bool udp;
};

/* All addresses are IPv4, dotted and checked. */
struct net {
	enum net_kind kind;
	const char *tap; /* NET_TAP: the interface's name */
	int fd;          /* NET_FD: its number as our caller knows it */
	struct publish *publish;
	size_t publish_count;
	const char **dns;
	size_t dns_count;
	const char *address; /* of the guest; NULL: none given */
	unsigned prefix;     /* 0 to 32, with address */
	const char *gateway; /* NULL: none given */
};

struct options {
	uint64_t memory; /* bytes, whole pages */
	bool read_only;
	bool ephemeral;
	bool verbose;
	bool dry_run;
	const char *workdir;
	const char *hostname;
	const char *kernel; /* NULL: look for it */
	const char *append; /* further kernel parameters, separated by blanks; NULL: none */
	const char **env;   /* K=V */
	size_t env_count;
	struct net net;
	const char *image;
	char **command; /* ends with NULL; empty: an interactive shell */
};

/* Reads the command line. Ends the program after --help and --version, and with a message when something is wrong. */
void options_parse(struct options *options, char **argv);

#endif
