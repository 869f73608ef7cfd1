/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of init on the console. Without stdio: every page of init costs time at each boot. */
#ifndef NABLA_LOG_H
#define NABLA_LOG_H

/* Writes "nabla-init: WHAT: REASON"; reason may be NULL. */
void log_error(const char *what, const char *reason);

#endif
