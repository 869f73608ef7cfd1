/* SPDX-License-Identifier: Apache-2.0 */
/* The guest around the command: mounts, host name, the way down. */
#ifndef NABLA_SYSTEM_H
#define NABLA_SYSTEM_H

/* Mounts /proc, which holds the settings. */
void mount_proc(void);

/* Mounts everything else a program expects. A directory or a file system that does not exist is left out. */
void mount_rest(void);

/* Opens the console as descriptors 0, 1 and 2; /dev must be mounted. */
void open_console(void);

void set_hostname(const char *name);

/* Writes what is not yet on the disk, hands the status to the kernel, and switches the machine off. */
_Noreturn void power_off(int status);

#endif
