/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's network: loopback always, eth0 and the resolver's file as far as the settings ask for it. */
#ifndef NABLA_NETWORK_H
#define NABLA_NETWORK_H

#include "settings.h"

/* /run must be mounted. What cannot be set up is told, and the machine goes on without it. */
void start_network(const struct settings *settings);

#endif
