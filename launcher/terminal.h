/* SPDX-License-Identifier: Apache-2.0 */
/* The host's terminal while a VM has it. */
#ifndef NABLA_TERMINAL_H
#define NABLA_TERMINAL_H

#include <stdbool.h>

/* True if a person sits there: input and output are both terminals. */
bool terminal_present(void);

/* Remembers how the descriptors 0, 1 and 2 are now; terminal_restore() brings them back to that. */
void terminal_remember(void);

/* Hands every key to the guest, ^C and ^Z included, and shows what the guest writes as it is. */
void terminal_raw(void);

/* Undoes all changes, ours and those of the VM. May be called at any time and more than once. */
void terminal_restore(void);

#endif
