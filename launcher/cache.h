/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of snapshots for instant starts, of this user alone; its loss costs nothing but time. */
#ifndef NABLA_CACHE_H
#define NABLA_CACHE_H

#include <stdbool.h>

#define CACHE_NAME_MAX 32

/*
 * Opens the folder; with create, creates it first if it does not exist. Returns a descriptor, close-on-exec, FD_HIGH
 * or above; -1 with the reason in *why.
 */
int cache_open(bool create, const char **why);

/* Opens a file of this user in the folder for reading; -1 with the reason, which is NULL if there is no such file. */
int cache_find(int folder, const char *name, const char **why);

/* Returns an unnamed file, which vanishes unless it is published; -1 with the reason. */
int cache_create(int folder, const char **why);

/* Names a file that cache_create() returned, and removes old files beyond the bounds of the folder. */
bool cache_publish(int folder, int fd, const char *name, const char **why);

#endif
