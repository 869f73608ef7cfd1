/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals never interrupt the launcher: they are blocked and received one by one, so no signal can leave the terminal in raw
 * mode or the VM running.
 */
#ifndef NABLA_SIGNALS_H
#define NABLA_SIGNALS_H

#include <signal.h>

/* Blocks the signals that the launcher handles, and returns a signalfd for them, which is only polled. */
int signals_block(sigset_t *handled);

/*
 * Returns a pending signal, or 0. SIGTSTP stays pending, so that a SIGCONT that arrives before the launcher stops
 * discards it (signal(7)).
 */
int signals_pending(const sigset_t *handled);

/*
 * The default action of the pending SIGTSTP stops the launcher. In an orphaned process group the kernel ignores it, and
 * no SIGCONT is pending afterwards.
 */
void signals_stop(void);

#endif
