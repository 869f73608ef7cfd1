/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services: programs that run beside the command. Each is an executable file of the image, /etc/nabla/services/NAME,
 * usually a script that ends with an exec; it stays in the foreground. Those that /etc/nabla/start/ names start with
 * every boot, others when the launcher asks for them. What they write goes to /var/log/NAME.log.
 */
#ifndef NABLA_SERVICES_H
#define NABLA_SERVICES_H

#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Starts them all; tells of those that do not start. Returns how many were to be started. */
size_t services_start(const struct settings *settings);

/* A child has ended, with this raw status: if it was a service, tells so. Returns whether it was one. */
bool services_ended(pid_t pid, int raw);

/* Asks all that still run to end (SIGTERM), and from now on expects them to. Returns whether there are any. */
bool services_stop(void);

/* Returns whether any still runs. */
bool services_running(void);

/* Returns the exit status of the first that failed, 0 if none did. */
int services_status(void);

#endif
