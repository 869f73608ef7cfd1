/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services: programs that run beside the command. Each is an executable file of the image, /etc/nabla/services/NAME,
 * usually a script that ends with exec; it stays in the foreground. Services listed in /etc/nabla/start/ start at every
 * boot, others when the launcher requests them. Their output goes to /var/log/NAME.log.
 */
#ifndef NABLA_SERVICES_H
#define NABLA_SERVICES_H

#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Finds the image's services that start at every boot. */
void services_find_default(void);

/* Adds the services that the launcher requests. Returns the number of services to start. */
size_t services_find(const struct settings *settings);

/* Starts all services and reports failures. Returns the number of services to start, including failed ones. */
size_t services_start(const struct settings *settings);

/* Handles the end of a child with this wait status; reports a failed service. Returns true if it was a service. */
bool services_ended(pid_t pid, int raw);

/* Sends SIGTERM to all running services; from now on, their end is not a failure. Returns true if there are any. */
bool services_stop(void);

/* Returns true if any service is running. */
bool services_running(void);

/* Returns the exit status of the first failed service, 0 if none failed. */
int services_status(void);

#endif
