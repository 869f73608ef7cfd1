/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt(1), a separate process that connects the guest to the host's network. It needs no privilege except user
 * namespaces, which it uses to confine itself. It exchanges Ethernet frames with the VM over a stream socket and exits
 * when the VM's end is closed.
 */
#ifndef NABLA_HELPER_H
#define NABLA_HELPER_H

#include "options.h"

#include <sys/types.h>

#define HELPER_START_MS 20000
#define HELPER_MTU "65520"		   /* the maximum of passt */
#define HELPER_MAC "02:6e:61:62:6c:61" /* without it, passt needs a network interface of the host */

/* As asprintf(3); fails without memory. */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Starts passt and waits until it listens on the published ports. Stores the VM's end of the socket in *fd. */
pid_t helper_start(const struct options *options, int *fd);

const char *const *helper_command(const struct net *net);

void helper_settings(const struct net *net, void (*add)(void *to, const char *format, ...), void *to);

/* The parts of helper_start(), for the fence. Creates the file in memory for the messages of helpers, once. */
void helper_messages(void);

/*
 * Becomes a helper that writes its process ID to standard output when it is ready, the pipe's end `ready`. It has the VM's limit of
 * processor time and dies with its parent. socket: -1 or passt's.
 */
_Noreturn void helper_exec(const struct options *options, pid_t parent, const char *const *words, int socket, int ready);

/* Lets this process die with its parent, whose process ID this is. A change of the user cancels it. */
void helper_tie(pid_t parent);

/* In a child: this input, output and errors to the messages, and no other descriptor. */
void helper_streams(int input);

/* Waits until the helper is ready; fails if it exits instead. */
void helper_wait(const char *const *words, pid_t pid, int ready);

/* The last thing that a helper has said. */
const char *helper_message(void);

/* Creates a pipe for helper_wait() and helper_exec(), which a helper of another user opens by name. */
void helper_pipe(int ends[2]);

/* Waits until passt exits. All copies of the VM's end of the socket must be closed. */
void helper_end(pid_t helper);

#endif
