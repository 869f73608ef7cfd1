/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of the container. */
#ifndef NABLA_OCI_GUEST_PROCESSES_H
#define NABLA_OCI_GUEST_PROCESSES_H

/* Lists them, as protocol.h says; *out is to be read. Returns 0 or an error number. */
int processes_list(int *out);

#endif
