/* SPDX-License-Identifier: Apache-2.0 */
/* The validated configuration of a bundle: nabla-oci can provide everything in it. */
#ifndef NABLA_OCI_CONTAINER_H
#define NABLA_OCI_CONTAINER_H

#include "json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mount_kind {
	MOUNT_BIND,	    /* by the host's kernel, below the root directory that the guest gets */
	MOUNT_TMPFS_HOST,   /* likewise, because other mounts are below it */
	MOUNT_TMPFS_GUEST,  /* by the guest's kernel */
};

struct mount {
	enum mount_kind kind;
	const char *destination; /* absolute, without superfluous slashes, . and .. */
	const char *source;	 /* MOUNT_BIND: absolute */
	unsigned long flags;	 /* MS_RDONLY, MS_NOSUID and so on */
	bool recursive;
	bool copy_up;		 /* MOUNT_TMPFS_HOST: it starts with the files that it hides */
	const char *data;	 /* MOUNT_TMPFS_*: options of the file system */
};

struct limit {
	int resource;
	uint64_t soft, hard; /* RLIM_INFINITY: none */
};

enum { CAP_SETS = 5 }; /* bounding, effective, permitted, inheritable, ambient */
extern const char *const capability_sets[CAP_SETS];

struct process {
	bool present; /* without it the container cannot be started */
	bool terminal;
	unsigned short rows, columns; /* 0: not given */
	const char **args, **env;
	const char *cwd;
	uint32_t uid, gid;
	uint32_t *groups;
	size_t group_count;
	int umask; /* -1: not given */
	struct limit *limits;
	size_t limit_count;
	bool capabilities_given, no_new_privileges, oom_given;
	uint64_t capabilities[CAP_SETS];
	int oom;
};

/* A file of cgroup v2 and the value to write to it. */
struct setting {
	const char *name, *value;
};

struct container {
	struct json_object *document;
	const char *version; /* ociVersion */
	const char *root;    /* as written in the bundle, relative to the bundle or absolute */
	bool root_read_only;
	const char *hostname, *domainname; /* NULL: not given */
	struct process process;
	struct mount *mounts;
	size_t mount_count;
	const char **masked, **read_only; /* outside of file systems of the guest's kernel */
	struct setting *sysctls;
	size_t sysctl_count;
	const char *network_path; /* the namespace to join; NULL: none */
	bool network_new;	  /* a new, empty network namespace */
	bool no_network_accepted; /* by annotation */
	const char *cgroup;	  /* NULL: not given */
	struct setting *cgroup_settings;
	size_t cgroup_setting_count;
	uint64_t memory;	  /* of the VM, bytes */
	int64_t tasks;		  /* processes in the guest; -1: no limit */
	const char *kernel;	  /* annotation; NULL: not given */
};

#define CAPABILITY_COUNT 41
#define MEMORY_DEFAULT (UINT64_C(256) << 20)
#define MEMORY_MIN (UINT64_C(24) << 20)
/* The part of a memory limit that nabla-run and its file server need on the host. */
#define MEMORY_HOST (UINT64_C(16) << 20)

#define ANNOTATION "org.nabla-linux."

/* Parses a document; fails with a clear message if it requests something unsupported. The container refers to the
 * document. */
void container_parse(struct json_object *document, struct container *container);

/* Parts of it. */
void parse_process(const struct at *config, struct process *process);
void parse_mounts(const struct at *config, struct container *container);
void parse_linux(const struct at *config, struct container *container);
void parse_resources(const struct at *linux_section, struct container *container);

/* Returns the path without superfluous slashes; fails if it is not absolute, or has . or .. in it. */
const char *tidy_path(const struct at *at);

/* Returns true if path is the directory, or below it. Both are normalized. */
bool path_is_below(const char *path, const char *directory);

#endif
