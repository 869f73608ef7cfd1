/* SPDX-License-Identifier: Apache-2.0 */
/* The files of the guest's first program, see guest/protocol.h. */
#ifndef NABLA_OCI_GUEST_FILES_H
#define NABLA_OCI_GUEST_FILES_H

#include "container.h"

/* Writes them. Only the user of the VM can read them. */
void guest_files_write(const struct container *c, int directory, uid_t uid, gid_t gid);

/* The words of a process. *length: of the text, which lives as long as this program. */
const char *process_words(const struct process *process, size_t *length);

#endif
