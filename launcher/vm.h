/* SPDX-License-Identifier: Apache-2.0 */
/* The VM as a child process: started, watched, ended. */
#ifndef NABLA_VM_H
#define NABLA_VM_H

/*
 * Runs the kernel with the image at its fixed descriptor until it ends, and returns the exit status for our caller: the
 * guest's own, or 128+N if signal N ended the VM or us.
 */
int vm_run(const char *kernel, char **argv, int image);

#endif
