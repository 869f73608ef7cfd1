// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include "diag.h"

void network_open(const struct options *o, struct network *network)
{
	*network = (struct network){.fd = -1};
	if (o->net.kind != NET_NONE)
		fail("use --net none", "this nabla-run has no network");
}

const char *const *network_command(const struct options *o)
{
	(void)o;
	return NULL;
}

void network_settings(const struct options *o, void (*add)(void *to, const char *format, ...), void *to)
{
	(void)o, (void)add, (void)to;
}

void network_close(struct network *network)
{
	(void)network;
}
