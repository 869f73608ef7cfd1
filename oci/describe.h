/* SPDX-License-Identifier: Apache-2.0 */
/* What nabla-oci prints about itself. */
#ifndef NABLA_OCI_DESCRIBE_H
#define NABLA_OCI_DESCRIBE_H

#include <stdbool.h>

void describe_version(void);
void describe_features(void);

/* Writes config.json of an example bundle to the working directory; fails if there is one. */
void describe_spec(void);

/* Prints the tables of what is refused and what means nothing, in Markdown. */
void describe_rules(void);

#endif
