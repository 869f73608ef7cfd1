// SPDX-License-Identifier: Apache-2.0
// Pipes and FIFOs: order, end of file, SIGPIPE and EPIPE, non-blocking use, capacity, big transfers, splice.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

static int fds[2];

static void reopen(int flags)
{
	if (pipe2(fds, flags))
		tap_note("pipe failed");
}

static void shut(void)
{
	close(fds[0]);
	close(fds[1]);
}

static void test_basics(void)
{
	char text[32] = "";
	int waiting = 0;
	reopen(0);
	CHECK(write(fds[1], "abc", 3) == 3 && write(fds[1], "def", 3) == 3 && read(fds[0], text, 4) == 4 &&
		      !memcmp(text, "abcd", 4), "bytes come in order, across writes");
	CHECK(ioctl(fds[0], FIONREAD, &waiting) == 0 && waiting == 2, "FIONREAD returns the rest");
	CHECK(lseek(fds[0], 0, SEEK_CUR) == -1 && errno == ESPIPE, "no seeking: ESPIPE");
	close(fds[1]);
	CHECK(read(fds[0], text, sizeof text) == 2 && read(fds[0], text, 1) == 0, "closed: the rest, then end of file");
	close(fds[0]);

	reopen(0);
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	CHECK(write(fds[1], "x", 1) == -1 && errno == EPIPE, "nobody reads: EPIPE");
	signal(SIGPIPE, SIG_DFL);
	close(fds[1]);
	CHECK(killed_by(run_role("broken-pipe", NULL), SIGPIPE), "or death by SIGPIPE");

	reopen(O_NONBLOCK);
	long filled = 0;
	ssize_t n;
	static char block[4096];
	while ((n = write(fds[1], block, sizeof block)) > 0)
		filled += n;
	CHECK(n == -1 && errno == EAGAIN && filled == fcntl(fds[1], F_GETPIPE_SZ), "non-blocking: full at its capacity");
	while ((n = read(fds[0], block, sizeof block)) > 0)
		filled -= n;
	CHECK(n == -1 && errno == EAGAIN && filled == 0, "and empty again");
	CHECK(fcntl(fds[1], F_SETPIPE_SZ, 16384) == 16384, "the capacity can be set");
	shut();

	// Empty parts at no address: how musl's fflush calls it.
	struct iovec parts[5] = {{NULL, 0}, {"one ", 4}, {"", 0}, {"two", 3}, {NULL, 0}};
	reopen(O_CLOEXEC);
	CHECK(writev(fds[1], parts, 5) == 7 && read(fds[0], text, sizeof text) == 7 && !memcmp(text, "one two", 7), "writev");
	shut();
}

enum { TOTAL = 8 << 20 };

static void *pump(void *unused)
{
	static unsigned char block[10007];
	long sent = 0;
	while (sent < TOTAL) {
		size_t want = TOTAL - sent < (long)sizeof block ? TOTAL - sent : (long)sizeof block;
		for (size_t i = 0; i < want; i++)
			block[i] = (sent + i) * 7 >> 3;
		ssize_t n = write(fds[1], block, want);
		if (n <= 0)
			break;
		sent += n;
	}
	close(fds[1]);
	return unused;
}

static void test_bulk(void)
{
	static unsigned char block[7001];
	pthread_t writer;
	long got = 0, wrong = 0;
	ssize_t n;
	reopen(0);
	pthread_create(&writer, NULL, pump, NULL);
	while ((n = read(fds[0], block, sizeof block)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			wrong += block[i] != (unsigned char)((got + i) * 7 >> 3);
		got += n;
	}
	pthread_join(writer, NULL);
	close(fds[0]);
	CHECK(got == TOTAL && wrong == 0, "8 MB between two threads in odd pieces");
}

static void test_processes(void)
{
	int back[2], good = 0;
	reopen(O_CLOEXEC);
	if (pipe2(back, O_CLOEXEC))
		return;
	char *argv[] = {"child", "echo", NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[0], 0);
	posix_spawn_file_actions_adddup2(&actions, back[1], 1);
	if (posix_spawn(&pid, SELF, &actions, NULL, argv, environ))
		return;
	posix_spawn_file_actions_destroy(&actions);
	close(fds[0]);
	close(back[1]);
	for (unsigned i = 0; i < 1000; i++) {
		unsigned answer = 0;
		good += write(fds[1], &i, sizeof i) == sizeof i && read(back[0], &answer, sizeof answer) == sizeof answer &&
			answer == i + 1;
	}
	close(fds[1]);
	CHECK(good == 1000, "1000 questions and answers between two processes");
	CHECK(exited_with(wait_status(pid), 0), "the other one sees the end of file");
	close(back[0]);
}

static void *write_fifo(void *path)
{
	int fd = open(path, O_WRONLY);
	ssize_t n = write(fd, "through a fifo", 14);
	close(fd);
	return (void *)n;
}

static void test_fifo(void)
{
	char path[64], text[32] = "";
	pthread_t writer;
	snprintf(path, sizeof path, "/tmp/nabla-fifo-%d", getpid());
	CHECK(mkfifo(path, 0600) == 0, "mkfifo");
	CHECK(open(path, O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO, "nobody reads it: ENXIO");
	pthread_create(&writer, NULL, write_fifo, path);
	int fd = open(path, O_RDONLY);
	CHECK(read(fd, text, sizeof text) == 14 && !strcmp(text, "through a fifo"), "opening waits for the other side");
	pthread_join(writer, NULL);
	close(fd);
	unlink(path);
}

static void test_splice(void)
{
	char path[] = "/tmp/nabla-splice-XXXXXX", text[32] = "";
	int file = mkstemp(path);
	reopen(0);
	loff_t offset = 6;
	if (file < 0 || write(file, "hello splice", 12) != 12)
		return;
	CHECK(splice(file, &offset, fds[1], NULL, 6, 0) == 6 && read(fds[0], text, 32) == 6 && !strcmp(text, "splice"),
	      "splice from a file");
	CHECK(write(fds[1], "written", 7) == 7 && splice(fds[0], NULL, file, NULL, 7, 0) == 7 &&
		      pread(file, text, 7, 12) == 7 && !memcmp(text, "written", 7), "splice into a file");
	shut();
	close(file);
	unlink(path);
}

static int echo_role(void)
{
	unsigned number;
	while (read(0, &number, sizeof number) == sizeof number) {
		number++;
		if (write(1, &number, sizeof number) != sizeof number)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "echo"))
		return echo_role();
	if (is_role(argc, argv, "broken-pipe")) {
		reopen(0);
		close(fds[0]);
		return write(fds[1], "x", 1) == 1;
	}
	test_basics();
	test_bulk();
	test_processes();
	test_fifo();
	test_splice();
	return tap_done();
}
