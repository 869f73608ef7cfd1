// SPDX-License-Identifier: Apache-2.0
// nabla-run: opens the files that the VM may use, drops all privileges, starts the kernel, waits for it, and returns its
// exit status. All user input is checked before the first process starts.
#include "control.h"
#include "descriptors.h"
#include "diag.h"
#include "dry_run.h"
#include "image.h"
#include "instant.h"
#include "jail.h"
#include "kernel.h"
#include "limits.h"
#include "network.h"
#include "options.h"
#include "privileges.h"
#include "share.h"
#include "status.h"
#include "terminal.h"
#include "vm.h"

static void open_disks(struct vm *vm, struct disk_file files[DISKS_MAX])
{
	const struct options *o = vm->options;
	files[0] = (struct disk_file){-1, 0};
	for (size_t i = o->disks[0].directory ? 1 : 0; i < o->disk_count; i++) {
		image_open(&o->disks[i], i == 0, o->follow_symlinks, &files[i]);
		vm->descriptors[FD_DISK + i] = files[i].fd;
	}
	snapshot_check_disks(o, files, &vm->snapshot);
	snapshot_create(o, files, &vm->snapshot);
	if (vm->snapshot.saved >= 0)
		vm->descriptors[FD_SNAPSHOT] = fd_copy_high(vm->snapshot.saved);
	vm->descriptors[FD_RESTORE] = vm->snapshot.restored;
}

static void open_network(struct vm *vm)
{
	const struct options *o = vm->options;
	if (o->dry_run && o->net.kind == NET_USER)
		vm->network = (struct network){.fd = -1, .stream = true}; /* a dry run starts no process */
	else
		network_open(o, &vm->network);
	vm->descriptors[FD_NETWORK] = vm->network.fd;
}

static void start_servers(struct vm *vm)
{
	shares_start(vm->options, vm->shares, vm->descriptors + FD_STREAM);
	vm->descriptors[FD_CONTROL] = control_start(vm->options, &vm->control, vm->output.log);
}

int main(int argc, char **argv)
{
	(void)argc;
	struct options options;
	struct disk_file files[DISKS_MAX];
	static struct vm vm;
	vm.options = &options;
	vm.stats_fd = -1;
	vm.started_ns = now_ns();
	open_standard_descriptors();
	options_parse(&options, argv);
	for (int fd = 0; fd < FD_COUNT; fd++)
		vm.descriptors[fd] = fd < FD_DISK ? fd : -1;
	if (options.stats_fd >= 0)
		vm.stats_fd = fd_copy_high(options.stats_fd);
	shares_open(&options, vm.shares);
	snapshot_restore(&options, &vm.snapshot);
	open_disks(&vm, files);
	kernel_open(&options, &vm.kernel);
	vm.terminal = terminal_present() && (!options.restore || vm.snapshot.terminal);
	instant_start(&vm, &options, files);
	limits_choose(&options, files, vm.limits);
	terminal_remember(vm.terminal);
	vm.descriptors[FD_STATUS] = status_create();
	output_open(&vm.output, &options, vm.descriptors);
	memory_watch_open(&vm.memory, &options);
	open_network(&vm);
	control_open(&options, &vm.control);
	if (options.pin)
		pin_to_processor();
	if (!options.dry_run)
		start_servers(&vm);
	vm.arguments = kernel_arguments(&options, &vm.kernel, &vm.network, vm.terminal);
	if (options.dry_run) {
		dry_run_print(&vm);
		return 0;
	}
	shares_wait(&options, vm.shares);
	control_wait(&vm.control);
	if (options.jail)
		jail_enter();
	privileges_drop(&options);
	if (options.verbose)
		note(vm.start.restored ? "start: restored" : "start: cold, %s", vm.start.why);
	return vm_run(&vm);
}
