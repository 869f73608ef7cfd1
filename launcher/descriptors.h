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
#define FD_OWN 16

/* Moves a descriptor to FD_OWN or above, close-on-exec, and returns its new number. */
int out_of_the_way(int fd);

/* The same with a copy: for descriptors that are our caller's. */
int copy_out_of_the_way(int fd);

/* With 0, 1 or 2 closed, what we open would get that number and be taken for the console. */
void open_standard_descriptors(void);

#endif
