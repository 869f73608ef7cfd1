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
	const char *address; /* of the host, dotted; NULL: 127.0.0.1 */
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
	unsigned prefix;     /* 1 to 32, with address */
	const char *gateway; /* NULL: none given */
};

/* Who the VM is on the host. */
struct identity {
	uid_t uid;
	gid_t gid;
};

struct options {
	/* the machine */
	uint64_t memory;	     /* bytes, whole pages */
	struct disk disks[DISKS_MAX]; /* the first is the root image */
	size_t disk_count;
	const char *kernel; /* NULL: look for it */
	const char *init;   /* path in the guest */
	const char *append; /* further kernel parameters, separated by blanks; NULL: none */
	bool verbose;
	struct net net;
	bool net_given;

	/* the command in it */
	const char *workdir;
	const char *hostname;
	const char *user; /* NULL: root */
	const char **env; /* K=V */
	size_t env_count;
	const char **services; /* to start in the guest */
	size_t service_count;
	char **command; /* ends with NULL; empty: an interactive shell */

	/* what surrounds it */
	struct identity run_as;
	bool run_as_given;
	bool jail;
	uint64_t timeout_ns; /* 0: none */
	int stats_fd;	     /* as our caller knows it; -1: none */
	bool json;
	bool trace_policy;
	bool dry_run;
};

/* Reads the command line. Ends the program after --help and its like, and with a message when something is wrong. */
void options_parse(struct options *options, char **argv);

#endif
