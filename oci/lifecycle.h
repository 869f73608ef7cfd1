/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on a container after create. Each function fails with a message. */
#ifndef NABLA_OCI_LIFECYCLE_H
#define NABLA_OCI_LIFECYCLE_H

#include <stdbool.h>

void container_start(const char *id);
void container_kill(const char *id, const char *signal_name, bool all);
void container_pause(const char *id);
void container_resume(const char *id);
void container_delete(const char *id, bool force);
void container_state(const char *id);
void container_list(bool json, bool quiet);

#endif
