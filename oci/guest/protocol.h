/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration that nabla-oci writes for the guest's first program: words NAME=VALUE, each followed by a NUL, in the
 * file GUEST_CONFIG of the directory that the guest sees as /proc until it mounts procfs there.
 *
 *   arg, env, cwd                   the command
 *   uid, gid, group, umask          numbers
 *   limit                           RESOURCE:SOFT:HARD
 *   bounding … ambient              capabilities, a hexadecimal mask; none: all stay
 *   privileges=no                   no_new_privs
 *   oom                             number
 *   sysctl                          PATH=VALUE, PATH below /proc/sys
 *   tasks                           number of processes and threads
 *   tmpfs                           FLAGS:OPTIONS:PATH, FLAGS of mount(2)
 *   noexec                          PATH
 *   domainname                      text
 *
 * When a signal makes the VM power off, the file GUEST_SIGNAL contains the number of the signal for the command.
 */
#ifndef NABLA_OCI_PROTOCOL_H
#define NABLA_OCI_PROTOCOL_H

#define GUEST_DIRECTORY "/proc"
#define GUEST_INIT "nabla-init"
#define GUEST_CONFIG "config"
#define GUEST_SIGNAL "signal"

#endif
