/* SPDX-License-Identifier: Apache-2.0 */
/* Properties that are refused, and properties without effect on a VM: tables, each row with its reason. */
#ifndef NABLA_OCI_RULES_H
#define NABLA_OCI_RULES_H

#include "json.h"

#include <stdbool.h>
#include <stddef.h>

/* Fails if the object has a property that the table refuses. where: the object's place, with a dot, or empty. */
void refuse_properties(const struct at *object, const char *where);

/* Prints the table of refused properties in Markdown. */
void refused_print(void);

/* A namespace, and the ways in which a bundle can request it. NULL: nothing to do; otherwise why it is
 * refused. */
struct namespace_rule {
	const char *type;
	const char *joined;  /* with a path: that of another process */
	const char *created; /* without a path: a new one */
	const char *absent;  /* not listed: that of the engine */
	const char *hint;    /* for absent */
};
extern const struct namespace_rule namespace_rules[];

/* File systems that the guest's kernel or its first program provides, wherever the bundle mounts them. */
struct guest_mount {
	const char *type;	 /* as the bundle names it */
	const char *destination; /* NULL: anywhere below a directory of the guest's own */
	const char *reason;
};
extern const struct guest_mount guest_mounts[];

/* Returns the directory above the path that a file system of the guest's kernel hides, or NULL. */
const char *guest_directory(const char *path);

/* Properties that are accepted without effect. */
struct meaningless {
	const char *property, *reason;
};
extern const struct meaningless meaningless[];

/* Device nodes that the guest's kernel makes itself. */
bool device_is_standard(const char *path);

#endif
