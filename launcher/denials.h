/* SPDX-License-Identifier: Apache-2.0 */
/* Reports what the network rules have denied, by the packets that nftables logs. */
#ifndef NABLA_DENIALS_H
#define NABLA_DENIALS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DENIALS_TEXT 64
#define DENIALS_TYPE(kind) (NFNL_SUBSYS_ULOG << 8 | (kind)) /* of a message */

/* Opens the namespace's log. Fails if the host's kernel has none. */
int denials_open(void);

/* Confines this process, and reports until passt (inside) or pasta (outside) has ended; then ends the other one and exits. */
_Noreturn void denials_report(int log, pid_t inside, pid_t outside);

/*
 * Reads messages of the log. Calls found() with the destination of each packet, as "tcp 192.0.2.1:80": at most DENIALS_TEXT bytes.
 * What is cut or damaged is left out.
 */
void denials_read(const uint8_t *messages, size_t length, void (*found)(const char *text));

#endif
