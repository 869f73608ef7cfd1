/* SPDX-License-Identifier: Apache-2.0 */
/* Permanently drops the privileges that launcher and VM no longer need once all files are open. */
#ifndef NABLA_PRIVILEGES_H
#define NABLA_PRIVILEGES_H

#include "options.h"

/* Switches to the VM's user, without supplementary groups and capabilities and with no way back, or fails. */
void privileges_drop(const struct options *options);

#endif
