/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of nabla-oci that it prints. */
#ifndef NABLA_OCI_DESCRIBE_H
#define NABLA_OCI_DESCRIBE_H

#include <stdbool.h>

void describe_version(void);
void describe_features(void);

/* Writes an example config.json to the working directory; fails if the file exists. */
void describe_spec(void);

/* Prints the tables of refused and ignored properties, in Markdown. */
void describe_rules(void);

#endif
