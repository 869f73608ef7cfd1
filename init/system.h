/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's environment: mounts, console, host name, power-off. */
#ifndef NABLA_SYSTEM_H
#define NABLA_SYSTEM_H

#include <stdbool.h>
#include <sys/types.h>

/* Mounts /proc, which holds the settings. */
void mount_proc(void);

/* Mounts the other file systems that programs expect, except where the directory or file system is missing. */
void mount_rest(void);

/* Opens the console as descriptors 0, 1 and 2; /dev must be mounted. */
void open_console(void);

void set_hostname(const char *name);

/* Opens the files that a power-off needs, before a VM saves itself, so that restored VMs need not. */
void prepare_power_off(void);

/* Syncs the disks unless their contents are discarded, passes the exit status to the kernel, and powers off. */
_Noreturn void power_off(int status, bool discard);

/*
 * Lets a stopped child continue untraced. waitpid() without WUNTRACED reports a stop only for a child that has called
 * PTRACE_TRACEME, as some programs do to detect debuggers. The signal that stopped the child is delivered to it.
 */
void stop_tracing(pid_t pid, int number);

#endif
