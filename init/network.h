/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network: the loopback interface and, if the settings contain them, eth0 and the resolver's
 * configuration. */
#ifndef NABLA_NETWORK_H
#define NABLA_NETWORK_H

#include "settings.h"

/* A kernel without a network is not an error. */
void start_loopback(void);

/* eth0 and name servers. /run must be mounted. Reports what cannot be set up, and continues. */
void start_network(const struct settings *settings);

#endif
