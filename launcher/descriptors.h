/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers under which the VM finds what we opened for it; its policy counts on them. */
#ifndef NABLA_DESCRIPTORS_H
#define NABLA_DESCRIPTORS_H

#define FD_DISK 3 /* and the following seven */
#define FD_NETWORK 11
#define FD_STATUS 12
#define FD_COUNT 13

/* Only until the kernel runs. */
#define FD_KERNEL 13
#define FD_LINK 14

/* What we hold ourselves stands above all of them. */
#define FD_HIGH 16

/* Moves a descriptor to FD_HIGH or above, close-on-exec, and returns its new number. */
int fd_move_high(int fd);

/* The same with a copy: for descriptors that are our caller's. */
int fd_copy_high(int fd);

/* With 0, 1 or 2 closed, what we open would get that number and be taken for the console. */
void open_standard_descriptors(void);

#endif
