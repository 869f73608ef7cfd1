/* SPDX-License-Identifier: Apache-2.0 */
/* Archives between nabla cp -r and tar in a guest: the format of ustar, with GNU's entries for long names. */
#ifndef NABLA_CLIENT_TAR_H
#define NABLA_CLIENT_TAR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TAR_BLOCK 512
#define TAR_CUT "the archive is cut"
#define TAR_NAME 100
#define TAR_NAME_MAX 4095 /* of names and targets of links */

struct tar_header {
	char name[TAR_NAME], mode[8], uid[8], gid[8], size[12], time[12], sum[8], type, target[TAR_NAME], magic[8], user[32], group[32],
		major[8], minor[8], prefix[155], rest[12];
};

/* The sum of a header's bytes, that of its field `sum` counted as blanks. */
unsigned tar_sum(const struct tar_header *header);

/*
 * Writes what is in a directory: files, directories and symbolic links, with their modes. Others are left out, and reported by
 * note(). Fails on an error.
 */
void tar_write(int out, int directory);

/*
 * Unpacks an archive of a hostile guest below a directory. No name leads out of it: each component is opened without following
 * links, and absolute names and those with `..` are errors. Returns NULL, or why it stopped. Devices and the like are left out.
 */
const char *tar_read(int in, int directory);

#endif
