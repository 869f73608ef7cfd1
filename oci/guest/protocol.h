/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration that nabla-oci writes for the guest's first program: words NAME=VALUE, each followed by a NUL, in the
 * file GUEST_CONFIG of the directory that the guest sees as /proc until it mounts procfs there.
 *
 *   arg, env, cwd                   the command; its HOME is that of its user ID unless env has one
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
 * The control channel (control_wire.h) brings words, too. Those of CONTROL_PROCESS are the first five lines and oom. If
 * CONTROL_FAILED is the answer, its stage is an enum guest_stage, or one of the channel's. Those of CONTROL_QUESTION are one of
 *
 *   list=                           answered by PROCESS PARENT USER COMMAND, a line for each process of the container
 *   kill, killall                   number of a signal: for the container's first process, or for all
 */
#ifndef NABLA_OCI_PROTOCOL_H
#define NABLA_OCI_PROTOCOL_H

#define GUEST_DIRECTORY "/proc"
#define GUEST_INIT "nabla-init"
#define GUEST_CONFIG "config"

/* What could not be done for a program. */
enum guest_stage {
	GUEST_STAGE_PROGRAM = 16,
	GUEST_STAGE_STREAMS,
	GUEST_STAGE_LIMITS,
	GUEST_STAGE_OOM,
	GUEST_STAGE_CWD,
	GUEST_STAGE_CAPABILITIES,
	GUEST_STAGE_USER,
	GUEST_STAGE_PRIVILEGES,
	GUEST_STAGE_WORDS,
	GUEST_STAGE_END,
};

#define GUEST_STAGE_NAMES                                                                                                      \
	{                                                                                                                      \
		"args", "standard streams", "rlimits", "oomScoreAdj", "cwd", "capabilities", "user", "noNewPrivileges", "process" \
	}

#endif
