/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers that record their arguments. */
#ifndef NABLA_HANDLERS_H
#define NABLA_HANDLERS_H

#include <signal.h>
#include <stddef.h>

static volatile int count, last;
static volatile siginfo_t info_seen;
static volatile double fraction;

static inline void counting(int signal)
{
	count++;
	last = signal;
	fraction = signal / 3.0;
}

static inline void with_info(int signal, siginfo_t *info, void *context)
{
	(void)context;
	count++;
	last = signal;
	info_seen = *info;
}

static inline void handle(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(signal, &action, NULL);
	count = last = 0;
}

static inline void handle_info(int signal, int flags)
{
	struct sigaction action = {.sa_sigaction = with_info, .sa_flags = SA_SIGINFO | flags};
	sigaction(signal, &action, NULL);
	count = last = 0;
}

static inline sigset_t set_of(int signal)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signal);
	return set;
}

#endif
