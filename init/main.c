// SPDX-License-Identifier: Apache-2.0
// nabla-init, process 1 of the guest: sets up a system for one command, runs it, and powers off with the command's exit
// status. Each system call of init is part of every boot, so init does only what is necessary.
#include "command.h"
#include "log.h"
#include "network.h"
#include "settings.h"
#include "shares.h"
#include "snapshot.h"
#include "system.h"

#include <unistd.h>

int main(int argc, char **argv)
{
	struct settings settings;
	(void)argc;
	if (is_snapshot_command(argv[0]))
		return snapshot_main(argv);
	if (getpid() != 1) {
		log_error("must be process 1", NULL);
		return 1;
	}
	mount_proc();
	settings_read(&settings, argv);
	mount_rest();
	open_console();
	start_loopback();
	if (!mount_shares(settings.mounts))
		power_off(STATUS_NOT_STARTED, settings.discard);
	/* nabla-run's instant start: nothing so far depends on the command. A VM that is asked to save itself ends here; a
	 * VM that is restored from its snapshot has its own settings.
	 */
	if (!settings.save)
		command_configure(&settings);
	else if (!command_save(&settings, argv))
		power_off(1, true);
	int status = command_run(&settings);
	power_off(status, settings.discard);
}
