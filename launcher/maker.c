// SPDX-License-Identifier: Apache-2.0
// The snapshot comes from a separate VM, which runs only the kernel and the image's nabla-init and /bin/true: a user's
// command could leave a snapshot that harms later VMs.
#include "maker.h"

#include "descriptors.h"
#include "jail.h"
#include "privileges.h"
#include "snapshot.h"
#include "status.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 10000
#define REHEARSAL_MAX (UINT64_C(1) << 30) /* it compares all memory */

static void reduce(struct options *o)
{
	static char program[] = "/bin/true", *nothing[] = {NULL}, *rehearsal[] = {program, NULL};
	o->snapshot = "";
	o->snapshot_then_exit = o->save_boot = true;
	/* The VM then runs a command like later VMs, and adds to the file the list of pages that change. */
	o->rehearse = o->memory <= REHEARSAL_MAX;
	o->command = o->rehearse ? rehearsal : nothing;
	o->env_count = o->service_count = 0;
	o->workdir = "/";
	o->hostname = HOSTNAME_DEFAULT;
	o->user = o->name = NULL;
	/* Limits of the command: WAIT_MS bounds the boot, and a failure would count for starts without these limits. */
	o->timeout_ns = 0;
	o->cpu_time_ns = o->max_output = o->max_cow = UNLIMITED;
	o->stats_fd = -1;
	o->json = false;
}

/* console: a standard input that neither delivers data nor ends. */
static _Noreturn void run(const struct vm *from, const struct disk_file *files, int file, int console)
{
	struct options o = *from->options;
	static struct vm vm;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	reduce(&o);
	vm = (struct vm){
		.options = &o,
		.kernel = from->kernel,
		.network = {.fd = -1},
		.control = {.link = -1, .folder = -1, .listener = -1, .proc = -1},
		.snapshot = {.saved = file, .restored = -1},
		.terminal = from->terminal,
		.stats_fd = -1,
		.started_ns = now_ns(),
	};
	if (null < 0 || dup2(console, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(null, STDERR_FILENO) < 0)
		_exit(1);
	for (int fd = 0; fd < FD_COUNT; fd++)
		vm.descriptors[fd] = fd < FD_DISK ? fd : -1;
	for (size_t i = 0; i < o.disk_count; i++)
		vm.descriptors[FD_DISK + i] = files[i].fd;
	for (size_t i = 0; i < DISKS_MAX; i++)
		vm.snapshot.written[i] = -1;
	vm.descriptors[FD_SNAPSHOT] = fd_copy_high(file);
	vm.descriptors[FD_STATUS] = status_create();
	limits_choose(&o, files, vm.limits);
	output_open(&vm.output, &o, vm.descriptors);
	memory_watch_open(&vm.memory, &o);
	vm.arguments = kernel_arguments(&o, &vm.kernel, &vm.network, vm.terminal);
	if (o.jail)
		jail_enter();
	privileges_drop(&o);
	/* Changing the user cancels it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* If the launcher is already dead, its end of the console is closed. */
	struct pollfd launcher = {.fd = STDIN_FILENO};
	if (poll(&launcher, 1, 0))
		_exit(1);
	_exit(vm_run(&vm));
}

bool maker_run(const struct vm *vm, const struct disk_file *files, int file)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	struct pollfd other = {.fd = fd_move_high(ends[0])};
	int console = fd_move_high(ends[1]);
	pid_t pid = fork();
	if (pid == 0) {
		close(other.fd);
		run(vm, files, file, console);
	}
	close(console);
	if (pid > 0) {
		/* When it ends, the other end of the console is closed. */
		if (poll(&other, 1, WAIT_MS) <= 0) {
			kill(pid, SIGKILL);
			/* Its VM dies with it, and keeps the console open until then. */
			poll(&other, 1, WAIT_MS);
		}
		waitpid(pid, NULL, 0);
	}
	close(other.fd);
	return pid > 0;
}
