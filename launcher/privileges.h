/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up, for ever, whatever the launcher and the VM need no more once everything is open. */
#ifndef NABLA_PRIVILEGES_H
#define NABLA_PRIVILEGES_H

#include "options.h"

/* Becomes the user that the VM is to run as, without groups and capabilities and with no way back, or fails. */
void privileges_drop(const struct options *options);

#endif
