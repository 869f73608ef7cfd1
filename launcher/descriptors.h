/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptor numbers of the VM. Its policy depends on them. */
#ifndef NABLA_DESCRIPTORS_H
#define NABLA_DESCRIPTORS_H

#define FD_DISK 3 /* the root image; --disk uses the following seven */
#define FD_NETWORK 11
#define FD_STATUS 12
#define FD_SNAPSHOT 13 /* --snapshot */
#define FD_RESTORE 14 /* --restore */
#define FD_STREAM 15 /* the first of SHARES_MAX sockets to file servers */
#define FD_CONTROL 23 /* --name: the socket to the broker */
#define FD_COUNT 24
#define FD_COUNT_PLAIN 13 /* without snapshots, shared directories and a name */

/* Closed by the execve that starts the kernel. They follow the VM's: what is above is closed before. */
#define FD_KERNEL FD_COUNT
#define FD_LINK (FD_COUNT + 1)

/* Descriptors of the launcher itself are at or above this number. */
#define FD_HIGH 32

/* Moves a descriptor to FD_HIGH or above, sets close-on-exec, and returns the new number. */
int fd_move_high(int fd);

/* The same, but leaves the original open: for descriptors that the caller passed in. */
int fd_copy_high(int fd);

/* Closes all descriptors from first to last; ~0u: no last one. Calls nothing but system calls, for use after vfork. */
void close_range_of(unsigned first, unsigned last);

/* Opens /dev/null on 0, 1 and 2 where they are closed, so that no other file becomes the console. */
void open_standard_descriptors(void);

#endif
