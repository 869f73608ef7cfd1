/* SPDX-License-Identifier: Apache-2.0 */
/* The manual page of nabla-oci. */
#ifndef NABLA_OCI_MANUAL_H
#define NABLA_OCI_MANUAL_H

void manual_help(void);
void manual_print(void);

#endif
