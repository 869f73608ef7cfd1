// SPDX-License-Identifier: Apache-2.0
// An init that runs a program repeatedly and powers off: the first argument is the number of runs, the second the
// program. It prints the total time of all runs in microseconds.
#include <stdio.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	static char *const none[] = {NULL};
	int failed = argc < 3;
	double began = now_us();
	for (int turn = 0; !failed && turn < atoi(argv[1]); turn++) {
		int status = 1;
		pid_t pid = vfork();
		if (pid == 0) {
			execve(argv[2], argv + 2, none);
			_exit(127);
		}
		failed = pid < 0 || waitpid(pid, &status, 0) != pid || status;
	}
	printf("%.0f us%s\n", now_us() - began, failed ? ", failed" : "");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
