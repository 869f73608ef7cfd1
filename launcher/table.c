// SPDX-License-Identifier: Apache-2.0
// All options. A new one is one row here and, if it has a value, one function in parse.h.
#include "table.h"

#include "parse.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef NABLA_VERSION
#define NABLA_VERSION "unknown"
#endif

#define SWITCH(name, ...) static void name(struct options *o, const char *value) { (void)o, (void)value; __VA_ARGS__; }

SWITCH(set_read_only, o->disks[0].read_only = true)
SWITCH(set_ephemeral, o->disks[0].cow = true)
SWITCH(set_verbose, o->verbose = true)
SWITCH(set_jail, o->jail = true)
SWITCH(set_json, o->json = true)
SWITCH(set_trace_policy, o->trace_policy = true)
SWITCH(set_dry_run, o->dry_run = true)
SWITCH(show_manual, print_manual(), exit(0))
SWITCH(show_help, print_help(), exit(0))
SWITCH(show_version, puts("nabla-run " NABLA_VERSION), exit(0))

/* clang-format off */
const struct row option_table[] = {
{.name = "The machine"},
{"memory", "SIZE", "memory of the guest, with K, M or G",
 "Whole pages; at least 24M, at most what the host has. The host gives a page when it is first used.",
 "256M", "--memory 1G", parse_memory},
{"disk", "PATH[,ro][,cow]", "a further disk; may be repeated",
 "Any regular file or block device whose size is a multiple of 512 bytes, seven at most. IMAGE is `/dev/ubda` in the "
 "guest, these are `/dev/ubdb`, `/dev/ubdc` …, in the order given. `,ro`: it is only read. `,cow`: the guest may "
 "write, but its changes vanish with it. A disk that is written is locked for this machine alone, others may be "
 "shared.",
 NULL, "--disk data.img --disk tools.img,ro", parse_disk},
{"read-only", NULL, "open IMAGE for reading only; the guest's root is read-only",
 NULL, NULL, NULL, set_read_only},
{"ephemeral", NULL, "the guest may write to its root, but the changes vanish when it ends",
 "The image is mapped privately: its changes live in the host's memory, beside that of the guest.",
 NULL, NULL, set_ephemeral},
{"kernel", "PATH", "kernel to start",
 "Without it, `$NABLA_KERNEL`; else the first there is of `vmlinux`, `../kernel/vmlinux` and `../lib/nabla/vmlinux`, "
 "seen from the folder of nabla-run. Whom the machine runs as (see `--run-as`) must be allowed to execute it.",
 "the one beside nabla-run", NULL, parse_kernel},
{"init", "PATH", "first program of the guest",
 "Another program than nabla-init has to set the machine up by itself: COMMAND and the options about it, and the "
 "guest's network addresses, are settings which nabla-init reads (`/proc/nabla/settings`).",
 "/sbin/nabla-init", "--init /bin/sh", parse_init},
{"append", "STRING", "further parameters for the kernel",
 "Separated by blanks. Those which nabla-run sets itself are refused: `ubdN`, `ethN`, `status`, `policy`, `mem`, "
 "`init`, `rdinit`, `root`, `rootfstype`, `ro`, `rw`. If given twice, the last one holds.",
 NULL, "--append 'panic=1 loglevel=4'", parse_append},
{"verbose", NULL, "show the kernel's messages", NULL, NULL, NULL, set_verbose},

{.name = "The command"},
{"env", "NAME=VALUE", "set a variable of its environment; may be repeated",
 "Nothing is inherited from the host but TERM, and that only on a terminal.", NULL, "--env LANG=C.UTF-8", parse_env},
{"workdir", "DIR", "directory in which it starts", NULL, "/", NULL, parse_workdir},
{"user", "USER[:GROUP]", "user of the guest who runs it: name or number, perhaps with :GROUP",
 "Names are looked up in the guest's `/etc/passwd` and `/etc/group`. Whom the machine runs as on the host is another "
 "matter, see `--run-as`.",
 "root", "--user nobody", parse_user},
{"service", "NAME", "start a service of the image beside it; may be repeated",
 "An executable file in the guest's `/etc/nabla/services`; what it writes is in the guest's `/var/log/NAME.log`. "
 "Services that `/etc/nabla/start` names start without this. Without COMMAND and without a terminal, the machine runs "
 "until all services have ended, or until nabla-run is told to end it.",
 NULL, "--service nginx --publish 8080:80", parse_service},
{"hostname", "NAME", "host name of the guest", NULL, "nabla", NULL, parse_hostname},

{.name = "The network"},
{"net", "none|tap=IF|fd=N|user", "what the guest's eth0 is connected to",
 "`none`: there is no eth0. `tap=IF`: the host's tap interface IF, which must exist and be ours to open. `fd=N`: "
 "descriptor N of the caller, a tap or a socket of datagrams or packets, one Ethernet frame in each, or a stream "
 "socket with the length of each frame, four bytes, big-endian, in front of it. `user`: the host's own connections "
 "through a helper program, passt, that needs no privilege and ends with the machine.",
 "none", "--net tap=tap0", parse_net},
{"publish", "[ADDR:]HOST:GUEST[/udp]", "make the guest's port GUEST reachable as the host's port HOST",
 "With `--net user`, which it implies. ADDR is the IPv4 address of the host that listens, 127.0.0.1 if left out: "
 "then only the host itself can connect; 0.0.0.0 are all. May be repeated.",
 NULL, "--publish 0.0.0.0:8080:80", parse_publish},
{"dns", "ADDR", "name server for the guest; may be repeated",
 "IPv4, three at most. Without it, `--net user` asks those of the host.", NULL, "--dns 9.9.9.9", parse_dns},
{"ip", "ADDR/PREFIX[,GATEWAY]", "IPv4 address of the guest",
 "Without it, the guest has 10.0.2.15/24 and the gateway 10.0.2.2 with `--net user`, and sets up eth0 by itself "
 "otherwise.", NULL, "--ip 10.0.0.2/24,10.0.0.1", parse_ip},

{.name = "The border"},
{"run-as", "UID[:GID]", "user of the host that the machine runs as, when root starts it",
 "Numbers; GID is the same as UID if left out. nabla-run opens everything first and becomes this user then, with no "
 "supplementary group and no capability, so the images need not be readable for it. The machine runs as root only if "
 "told so by `--run-as 0`. An ordinary user's machines run as that user, nothing else can be given.",
 "65534:65534", "--run-as 1000:1000", parse_run_as},
{"jail", NULL, "also give the machine empty namespaces: mount, pid, net, ipc, uts",
 "Its root directory is then an empty, read-only one; for an ordinary user there is a user namespace around all of "
 "them. Where the host does not allow that, the machine is not started. Without the option there are no namespaces, "
 "which is faster and works everywhere; the seccomp filter that lets no path be opened is in force either way.",
 NULL, NULL, set_jail},
{"timeout", "SECONDS", "end the machine after this time, with status 124",
 "Fractions are allowed. It ends as by a signal.", NULL, "--timeout 2.5", parse_timeout},
{"trace-policy", NULL, "for work on the policy only: log forbidden host calls instead of killing",
 "**The border is open then**: each call is let through after it was written down, with name, number, six arguments "
 "and the address behind the instruction. Refused for root, with a network, and with a disk that is written.",
 NULL, NULL, set_trace_policy},

{.name = "Observation"},
{"json", NULL, "at the end, one line of JSON on standard error", NULL, NULL, NULL, set_json},
{"stats-fd", "N", "four times a second, one line of JSON to descriptor N",
 "A line that the reader has no room for is left out.", NULL, "--stats-fd 3 3>stats", parse_stats_fd},
{"dry-run", NULL, "print what would be done instead of doing it",
 "Options, kernel and images are checked and locks are taken as usual. The line `command:` is quoted for a shell.",
 NULL, NULL, set_dry_run},
{"manual", NULL, "print the manual, in Markdown", NULL, NULL, NULL, show_manual},
{"version", NULL, "print the version", NULL, NULL, NULL, show_version},
{"help", NULL, "print this text", NULL, NULL, NULL, show_help},
{.name = NULL},
};
