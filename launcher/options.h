/* SPDX-License-Identifier: Apache-2.0 */
/* The parsed command line. */
#ifndef NABLA_OPTIONS_H
#define NABLA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define UNLIMITED UINT64_MAX

#define INIT_DEFAULT "/sbin/nabla-init"
#define HOSTNAME_DEFAULT "nabla"

#define DISKS_MAX 8 /* including the root image */

struct disk {
	const char *path;
	bool read_only;
	bool cow; /* the guest's changes are discarded when the VM ends */
	bool directory; /* the root is not an image but shares[SHARE_ROOT] */
};

#define SHARES_MAX 8
#define SHARE_ROOT 0 /* the others are those of --mount */

/* A host directory in the guest. */
struct share {
	const char *host;
	const char *guest; /* an absolute path without superfluous slashes; NULL: the root */
	bool read_only;
	bool cache; /* the guest may cache what it has read */
};

enum net_kind {
	NET_NONE,
	NET_TAP,  /* an interface of the host */
	NET_FD,   /* an inherited descriptor */
	NET_USER, /* an unprivileged helper process */
};

struct publish {
	const char *address; /* of the host, dotted decimal; NULL: 127.0.0.1 */
	uint16_t host_port;
	uint16_t guest_port;
	bool udp;
};

/* What the guest may reach, or not: a network and ports of it, TCP and UDP. */
struct rule {
	const char *text; /* as given */
	const char *name; /* of a host, which the network helper looks up; NULL: the network is given */
	int family;	  /* AF_INET, AF_INET6 */
	uint8_t address[16];
	unsigned prefix;
	uint16_t first, last; /* ports; 0: all, and other protocols */
	bool deny;
};

/* All addresses but those of rules are valid IPv4 addresses in dotted decimal. */
struct net {
	enum net_kind kind;
	const char *tap; /* NET_TAP: the interface's name */
	int fd;          /* NET_FD: the inherited number */
	struct publish *publish;
	size_t publish_count;
	const char **dns;
	size_t dns_count;
	struct rule *rules; /* none: the guest reaches all that the host reaches */
	size_t rule_count;
	const char *address; /* of the guest; NULL: not given */
	unsigned prefix;     /* 1 to 32, with address */
	const char *gateway; /* NULL: not given */
};

/* The host user that the VM runs as. */
struct identity {
	uid_t uid;
	gid_t gid;
};

struct options {
	/* the VM */
	uint64_t memory;	     /* bytes, a multiple of the page size */
	bool memory_given;
	struct disk disks[DISKS_MAX]; /* the first is the root image */
	size_t disk_count;
	struct share shares[SHARES_MAX];
	size_t mount_count; /* shares[1] and following */
	const char *kernel; /* NULL: search for it */
	const char *init;   /* path in the guest */
	const char *append; /* additional kernel parameters, separated by spaces; NULL: none */
	bool verbose;
	bool follow_symlinks;
	bool pin; /* to one processor */
	struct net net;
	bool net_given;

	const char *name; /* under which clients find the VM; NULL: none */

	/* the command */
	const char *workdir;
	const char *hostname;
	const char *user; /* NULL: root */
	const char **env; /* K=V */
	size_t env_count;
	const char **services; /* to start in the guest */
	size_t service_count;
	char **command; /* NULL-terminated; empty: an interactive shell */

	/* snapshots */
	const char *snapshot; /* the file to create; NULL: none */
	bool snapshot_then_exit;
	const char *restore; /* the file to start from; NULL: the VM boots */
	bool cold;	     /* never start from a snapshot that was not given */
	bool save_boot;	     /* nabla-init saves the VM before it applies settings; no option of the user */
	bool rehearse;	     /* the VM continues, and adds to the snapshot the list of pages that it changes; likewise */

	/* isolation, limits and observation */
	struct identity run_as;
	bool run_as_given;
	bool jail;
	uint64_t timeout_ns; /* 0: none */
	uint64_t cpu_time_ns; /* this and the next two: UNLIMITED if there is no limit */
	uint64_t max_output;  /* bytes */
	uint64_t max_cow;     /* bytes */
	int nice;
	int stats_fd;	     /* the inherited number; -1: none */
	bool json;
	bool trace_policy;
	bool dry_run;
};

/* Parses the command line. Exits after --help and similar options, and fails on an error. */
void options_parse(struct options *options, char **argv);

#endif
