/* SPDX-License-Identifier: Apache-2.0 */
/* The host's terminal while a VM uses it. */
#ifndef NABLA_TERMINAL_H
#define NABLA_TERMINAL_H

#include <stdbool.h>

/* Returns true if standard input and standard output are both terminals. */
bool terminal_present(void);

/* Saves the state of descriptors 0, 1 and 2 for terminal_restore(). used: as the terminal of the guest. */
void terminal_remember(bool used);

/* Sets raw mode: every key, including ^C and ^Z, goes to the guest, and the guest's output is not processed. */
void terminal_raw(void);

/* Undoes the changes of the launcher and of the VM. May be called at any time and repeatedly. */
void terminal_restore(void);

#endif
