// SPDX-License-Identifier: Apache-2.0
// The option table. A new option is one row here and, if it takes a value, one function in parse.h.
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
SWITCH(set_pin, o->pin = true)
SWITCH(set_verbose, o->verbose = true)
SWITCH(set_jail, o->jail = true)
SWITCH(set_follow_symlinks, o->follow_symlinks = true)
SWITCH(set_json, o->json = true)
SWITCH(set_trace_policy, o->trace_policy = true)
SWITCH(set_snapshot_then_exit, o->snapshot_then_exit = true)
SWITCH(set_cold, o->cold = true)
SWITCH(set_dry_run, o->dry_run = true)
SWITCH(show_manual, print_manual(), exit(0))
SWITCH(show_help, print_help(), exit(0))
SWITCH(show_version, puts("nabla-run " NABLA_VERSION), exit(0))

/* clang-format off */
const struct row option_table[] = {
{.name = "The VM"},
{"memory", "SIZE", "memory of the guest, with K, M or G",
 "Rounded down to whole pages; at least 24M, at most the memory of the host. The host allocates a page when the guest "
 "first uses it.",
 "256M", "--memory 1G", parse_memory},
{"disk", "PATH[,ro][,cow]", "add a disk; may be repeated",
 "A regular file or block device whose size is a multiple of 512 bytes; at most seven. IMAGE is `/dev/ubda` in the "
 "guest, these disks are `/dev/ubdb`, `/dev/ubdc` … in the order of the options. `,ro`: the disk is read-only. "
 "`,cow`: copy on write, the guest's changes are discarded when the VM ends. A writable disk is locked for one VM; "
 "VMs can share the others.",
 NULL, "--disk data.img --disk tools.img,ro", parse_disk},
{"mount", "HOST:GUEST[:ro][:cache]", "share a host directory; may be repeated",
 "The directory HOST appears as GUEST in the guest, which creates GUEST if it is missing. At most seven, and no path may contain a colon. `:ro`: the "
 "guest cannot change it. `:cache`: faster, but the guest does not see later changes by the host. Files belong to root "
 "of the guest, and to the user of the VM on the host, see `--run-as`. IMAGE may be a directory too. See "
 "[directories.md](directories.md).",
 NULL, "--mount .:/work --mount /usr/share/dict:/dict:ro", parse_mount},
{"name", "NAME", "give the VM a name, under which `nabla` finds it",
 "1 to 64 letters, digits, `-`, `.` and `_`. The user who starts the VM can run more programs in it, copy files, pause and "
 "stop it, see [control.md](control.md).",
 NULL, "--name web", parse_name},
{"pin", NULL, "keep the VM and its file servers on one processor",
 "This is the processor on which nabla-run starts. The VM waits while a file server works, so they need no second "
 "processor, and waking one would take several times as long as most requests. The disadvantage is that the host cannot "
 "move the VM away from a busy processor.",
 NULL, "--pin --mount .:/work", set_pin},
{"read-only", NULL, "open IMAGE read-only; the guest's root is read-only",
 NULL, NULL, NULL, set_read_only},
{"ephemeral", NULL, "discard the guest's changes to its root when the VM ends",
 "The image is mapped copy on write: changes use memory of the host in addition to that of the guest, see `--max-cow`.",
 NULL, NULL, set_ephemeral},
{"kernel", "PATH", "kernel to start",
 "By default, `$NABLA_KERNEL`; otherwise the first file found of `vmlinux`, `../kernel/vmlinux` and "
 "`../lib/nabla/vmlinux`, relative to the directory of nabla-run. The user the VM runs as (`--run-as`) needs execute "
 "permission on it.",
 "the one beside nabla-run", NULL, parse_kernel},
{"init", "PATH", "first program of the guest",
 "A program other than nabla-init has to set up the guest itself: nabla-init reads COMMAND, the options of the command "
 "and the network addresses as settings from `/proc/nabla/settings`.",
 "/sbin/nabla-init", "--init /bin/sh", parse_init},
{"append", "STRING", "additional kernel parameters",
 "Separated by spaces. Parameters that nabla-run sets itself are refused: `ubdN`, `ethN`, `status`, `policy`, "
 "`snapshot`, `restore`, `streamN`, `mem`, `init`, `rdinit`, `root`, `rootfstype`, `rootflags`, `ro`, `rw`. The last `--append` "
 "replaces earlier ones.",
 NULL, "--append 'panic=1 loglevel=4'", parse_append},
{"verbose", NULL, "show the kernel's messages", NULL, NULL, NULL, set_verbose},
{"follow-symlinks", NULL, "as root, follow symbolic links that other users control",
 "By default, root follows a symbolic link in the path of an image or a kernel only if root owns both the link and its "
 "directory. Otherwise another user could make root open any file. Ordinary users always follow links.",
 NULL, NULL, set_follow_symlinks},

{.name = "The command"},
{"env", "NAME=VALUE", "set an environment variable; may be repeated",
 "The command inherits no variable of the host except TERM, and that only on a terminal.", NULL,
 "--env LANG=C.UTF-8", parse_env},
{"workdir", "DIR", "initial working directory", NULL, "/", NULL, parse_workdir},
{"user", "USER[:GROUP]", "guest user that runs the command, by name or number",
 "Names are looked up in the guest's `/etc/passwd` and `/etc/group`. The host user of the VM is a separate setting, see "
 "`--run-as`.",
 "root", "--user nobody", parse_user},
{"service", "NAME", "start a service of the image beside the command; may be repeated",
 "A service is an executable file in the guest's `/etc/nabla/services`; its output goes to the guest's "
 "`/var/log/NAME.log`. Services listed in `/etc/nabla/start` start without this option. Without COMMAND and without a "
 "terminal, the VM runs until all services have exited or nabla-run is terminated.",
 NULL, "--service nginx --publish 8080:80", parse_service},
{"hostname", "NAME", "host name of the guest", NULL, "nabla", NULL, parse_hostname},

{.name = "Snapshots"},
{"snapshot", "FILE", "create FILE, in which the guest may save itself",
 "The guest saves itself with `nabla-snapshot`, once, and continues. FILE is sparse and contains the memory of the VM, "
 "secrets included; only its owner can read it. An existing snapshot is replaced, any other file is not. The disks must "
 "not change: `--read-only`, `--ephemeral`, `,ro`, `,cow`. See docs/snapshots.md.",
 NULL, "--snapshot warm.snap --ephemeral", parse_snapshot},
{"snapshot-then-exit", NULL, "end the VM when it is saved, with status 0",
 "Disks may then be writable. The snapshot can be restored until one of them changes.", NULL, NULL,
 set_snapshot_then_exit},
{"restore", "FILE", "start from a snapshot instead of booting",
 "IMAGE and `--disk` must name the same disks, with the same options, as when FILE was created. Refused if the kernel or a "
 "disk differs, or if the processor lacks a feature. The guest finds the words after `--`, `--env` and `--workdir` in "
 "`/proc/nabla/settings`. The owner of FILE controls the guest, like the owner of an image.",
 NULL, "--restore warm.snap --ephemeral", parse_restore},
{"cold", NULL, "boot, even if a snapshot of the image's boot is in the cache",
 "By default, a VM whose disks are all `--read-only`, `--ephemeral`, `,ro` or `,cow` resumes from a snapshot of its boot, which "
 "the first start creates, see [snapshots.md](snapshots.md#instant-start). `--json` and `--verbose` report how a VM started.",
 NULL, NULL, set_cold},

{.name = "The network"},
{"net", "none|tap=IF|fd=N|user", "what the guest's eth0 is connected to",
 "`none`: there is no eth0. `tap=IF`: the existing tap interface IF of the host, which the caller must be allowed to "
 "open. `fd=N`: the inherited descriptor N, which is a tap device, a socket of datagrams or packets with one Ethernet "
 "frame in each, or a stream socket where a length of four bytes, big-endian, precedes each frame. `user`: the host's "
 "own connections through passt, a helper process without privileges that exits with the VM.",
 "none", "--net tap=tap0", parse_net},
{"publish", "[ADDR:]HOST:GUEST[/udp]", "forward port HOST of the host to port GUEST of the guest",
 "Requires `--net user`, and implies it. ADDR is the IPv4 address of the host to listen on. The default 127.0.0.1 "
 "accepts connections from the host only, 0.0.0.0 from everywhere. May be repeated.",
 NULL, "--publish 0.0.0.0:8080:80", parse_publish},
{"dns", "ADDR", "name server of the guest; may be repeated",
 "IPv4, at most three. By default, `--net user` forwards queries to the name servers of the host.", NULL,
 "--dns 9.9.9.9", parse_dns},
{"ip", "ADDR/PREFIX[,GATEWAY]", "IPv4 address of the guest",
 "By default, the guest has the address 10.0.2.15/24 and the gateway 10.0.2.2 with `--net user`, and configures eth0 "
 "itself otherwise.", NULL, "--ip 10.0.0.2/24,10.0.0.1", parse_ip},
{"allow", "HOST|CIDR[:PORT]", "let the guest reach this, and nothing else; may be repeated",
 "A host name, an address or a network, with a port, a range of ports (`:8000-8080`) or none for all protocols; IPv6 with a port "
 "in brackets: `[2001:db8::]/32:443`. Implies `--net user`, and needs nft and `/dev/net/tun`. The name is looked up once, and the guest "
 "finds the addresses in its `/etc/hosts`. The host's loopback is reached by the gateway if a port of it is allowed: "
 "`127.0.0.1:5432`. nabla-run reports each destination that was denied once. See [network.md](network.md#network-rules).",
 NULL, "--allow example.org:443 --allow 192.0.2.0/24", parse_allow},
{"deny", "HOST|CIDR[:PORT]", "do not let the guest reach this, even if it is allowed; may be repeated",
 "As `--allow`. Without `--allow`, the guest reaches everything else but the host's loopback.",
 NULL, "--deny 10.0.0.0/8 --deny 192.168.0.0/16", parse_deny},

{.name = "Isolation"},
{"run-as", "UID[:GID]", "host user that the VM runs as when root starts it",
 "Numbers; GID defaults to UID. nabla-run first opens all files, then switches to this user without supplementary "
 "groups and capabilities, so the images need not be readable by this user. The VM runs as root only with "
 "`--run-as 0`. The VM of an ordinary user always runs as that user.",
 "65534:65534", "--run-as 1000:1000", parse_run_as},
{"jail", NULL, "isolate the VM in empty mount, pid, net, ipc and uts namespaces, with default limits",
 "The root directory of the VM is empty and read-only. An ordinary user needs an additional user namespace. The VM does "
 "not start on a host that forbids namespaces. In a jail, the options of the next section have defaults that suit "
 "untrusted code. Without `--jail`, the seccomp filter still prevents the VM from opening any path.",
 NULL, NULL, set_jail},
{"trace-policy", NULL, "for policy development: log forbidden host calls and allow them",
 "**The policy is not enforced**: each forbidden call is logged with its name, number, six arguments and the address "
 "after the instruction, and then allowed. Refused for root, with a network, and with a writable disk.",
 NULL, NULL, set_trace_policy},

{.name = "Limits"},
{"timeout", "SECONDS", "stop the VM after this time, with status 124",
 "Fractions are allowed. The VM is stopped as if by SIGTERM.", NULL, "--timeout 2.5", parse_timeout},
{"cpu-time", "SECONDS", "kill the VM after this much processor time, with status 152",
 "Fractions are allowed; or `none`. With `--jail`, the default is 3600. File servers of `--mount` and "
 "the helpers of `--net user` are not counted; each has the same limit.",
 "none", "--cpu-time 60", parse_cpu_time},
{"nice", "N", "lower the VM's priority on the host by N, 0 to 19",
 "N is added to the nice value of nabla-run, for file servers of `--mount` and the helpers of `--net user` too. With `--jail`, the default is 5.",
 "0", "--nice 10", parse_nice},
{"max-output", "SIZE", "kill the VM when it has written more to standard output and error, with status 153",
 "With K, M or G, or `none`. nabla-run passes on at most SIZE bytes, both streams counted together. Streams that "
 "are a terminal or another character device store nothing and are not limited. With `--jail`, the default is 256M.",
 "none", "--max-output 16M", parse_max_output},
{"max-cow", "SIZE", "kill the VM when changes to copy-on-write disks use more memory, with status 137",
 "With K, M or G, or `none`. The limit applies to the VM's private memory on the host, swap included, which may exceed "
 "`--memory` by SIZE. nabla-run checks it 50 times a second. With `--jail`, the default is 1G.",
 "none", "--ephemeral --max-cow 512M", parse_max_cow},

{.name = "Observation"},
{"json", NULL, "write a report to standard error at the end, one line of JSON", NULL, NULL, NULL, set_json},
{"stats-fd", "N", "write statistics to descriptor N four times a second, one line of JSON",
 "A line is dropped if writing it would block.", NULL, "--stats-fd 3 3>stats", parse_stats_fd},
{"dry-run", NULL, "print what would be done, without starting the VM",
 "Options, kernel and images are checked and images are locked as usual. The line `command:` is quoted for a shell.",
 NULL, NULL, set_dry_run},
{"manual", NULL, "print the manual in Markdown", NULL, NULL, NULL, show_manual},
{"version", NULL, "print the version", NULL, NULL, NULL, show_version},
{"help", NULL, "print this text", NULL, NULL, NULL, show_help},
{.name = NULL},
};
