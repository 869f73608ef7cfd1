// SPDX-License-Identifier: Apache-2.0
// select, poll, ppoll, epoll, eventfd and signalfd.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>

static int fds[2];

static void *write_later(void *unused)
{
	wait_until_asleep(getpid());
	return write(fds[1], "z", 1) == 1 ? unused : &fds;
}

static void drain(void)
{
	char byte;
	if (read(fds[0], &byte, 1) != 1)
		tap_note("nothing to drain");
}

static void test_poll_and_select(void)
{
	pthread_t t;
	struct pollfd p[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLOUT, 0}};
	int64_t began = now_ns();
	CHECK(poll(p, 1, 30) == 0 && now_ns() - began >= 29000000, "poll runs out of time");
	CHECK(poll(p, 2, -1) == 1 && p[1].revents == POLLOUT, "poll: the other end is writable");
	pthread_create(&t, NULL, write_later, NULL);
	CHECK(poll(p, 1, 20000) == 1 && p[0].revents == POLLIN, "poll wakes up when data arrive");
	pthread_join(t, NULL);
	drain();
	p[0].fd = -1;
	p[1].fd = 999;
	CHECK(poll(p, 2, 0) == 1 && p[0].revents == 0 && p[1].revents == POLLNVAL, "closed and ignored descriptors");

	fd_set readable, writable;
	struct timeval tv = {0, 20000};
	FD_ZERO(&readable);
	FD_SET(fds[0], &readable);
	CHECK(select(fds[0] + 1, &readable, NULL, NULL, &tv) == 0 && !FD_ISSET(fds[0], &readable), "select runs out of time");
	FD_ZERO(&writable);
	FD_SET(fds[1], &writable);
	FD_SET(fds[0], &readable);
	CHECK(select(fds[1] + 1, &readable, &writable, NULL, NULL) == 1 && FD_ISSET(fds[1], &writable), "select: writable");
	pthread_create(&t, NULL, write_later, NULL);
	FD_ZERO(&readable);
	FD_SET(fds[0], &readable);
	tv.tv_sec = 20;
	CHECK(select(fds[0] + 1, &readable, NULL, NULL, &tv) == 1 && FD_ISSET(fds[0], &readable), "select wakes up");
	pthread_join(t, NULL);
	drain();
	FD_ZERO(&readable);
	FD_SET(40, &readable);
	CHECK(select(41, &readable, NULL, NULL, &tv) == -1 && errno == EBADF, "select on a closed descriptor: EBADF");
}

static volatile int signals;

static void on_signal(int signal)
{
	(void)signal;
	signals++;
}

static void test_masks(void)
{
	sigset_t block, open;
	struct sigaction action = {.sa_handler = on_signal};
	struct timespec second = {1, 0};
	struct pollfd p = {fds[0], POLLIN, 0};
	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&open);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, NULL);
	raise(SIGUSR1);
	CHECK(ppoll(&p, 1, &second, &open) == -1 && errno == EINTR && signals == 1, "ppoll takes a pending signal");
	raise(SIGUSR1);
	CHECK(pselect(0, NULL, NULL, NULL, &second, &open) == -1 && errno == EINTR && signals == 2, "pselect too");
	raise(SIGUSR1);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	CHECK(epoll_pwait(epoll, &event, 1, 1000, &open) == -1 && errno == EINTR && signals == 3, "epoll_pwait too");
	close(epoll);
	sigprocmask(SIG_UNBLOCK, &block, NULL);
	CHECK(signals == 3, "none was counted twice");
}

static void test_epoll(void)
{
	pthread_t t;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event want = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef0}, got[4];
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &want) == 0, "epoll: add");
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &want) == -1 && errno == EEXIST, "add again: EEXIST");
	CHECK(epoll_wait(epoll, got, 4, 20) == 0, "epoll_wait runs out of time");
	pthread_create(&t, NULL, write_later, NULL);
	CHECK(epoll_wait(epoll, got, 4, 5000) == 1 && got[0].data.u64 == want.data.u64 && got[0].events == EPOLLIN,
	      "epoll_wait wakes up and returns the data");
	pthread_join(t, NULL);
	CHECK(epoll_wait(epoll, got, 4, 0) == 1, "level-triggered: again");
	want.events = EPOLLIN | EPOLLET;
	epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &want);
	CHECK(epoll_wait(epoll, got, 4, 0) == 1 && epoll_wait(epoll, got, 4, 0) == 0, "edge-triggered: once");
	want.events = EPOLLIN | EPOLLONESHOT;
	epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &want);
	CHECK(epoll_wait(epoll, got, 4, 0) == 1, "one-shot: reported");
	drain();
	if (write(fds[1], "q", 1) == 1)
		CHECK(epoll_wait(epoll, got, 4, 20) == 0, "and then silent");
	drain();
	CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL) == 0, "delete");
	close(epoll);
}

static void *add_later(void *fd)
{
	uint64_t one = 1;
	wait_until_asleep(getpid());
	return write((int)(long)fd, &one, 8) == 8 ? NULL : fd;
}

static void test_eventfd(void)
{
	uint64_t value = 0;
	pthread_t t;
	int fd = eventfd(3, EFD_CLOEXEC);
	CHECK(read(fd, &value, 8) == 8 && value == 3, "eventfd gives its value");
	pthread_create(&t, NULL, add_later, (void *)(long)fd);
	CHECK(read(fd, &value, 8) == 8 && value == 1, "read blocks until somebody adds");
	pthread_join(t, NULL);
	close(fd);
	fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
	CHECK(read(fd, &value, 8) == 8 && value == 1 && read(fd, &value, 8) == 8 && read(fd, &value, 8) == -1 &&
		      errno == EAGAIN, "as a semaphore");
	close(fd);
}

static void test_signalfd(void)
{
	sigset_t set;
	struct signalfd_siginfo info;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	CHECK(fd >= 0 && read(fd, &info, sizeof info) == -1 && errno == EAGAIN, "signalfd: nothing yet");
	kill(getpid(), SIGUSR2);
	CHECK(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2 && info.ssi_pid == (uint32_t)getpid(),
	      "signalfd gives a signal");
	pid_t pid = start_role("exit", "6");
	struct pollfd p = {fd, POLLIN, 0};
	CHECK(poll(&p, 1, 5000) == 1 && read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGCHLD &&
		      info.ssi_status == 6, "and the end of a child");
	wait_status(pid);
	close(fd);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void test_inotify(void)
{
	char buffer[512], path[] = "/tmp/nabla-inotify-XXXXXX", name[64];
	if (!mkdtemp(path))
		return;
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 && errno == ENOSYS) {
		tap_skip("inotify", "the kernel has none");
	} else {
		inotify_add_watch(fd, path, IN_CREATE);
		snprintf(name, sizeof name, "%s/file", path);
		close(open(name, O_CREAT | O_WRONLY, 0600));
		struct inotify_event *event = (void *)buffer;
		CHECK(read(fd, buffer, sizeof buffer) > 0 && !strcmp(event->name, "file"), "inotify reports a new file");
		unlink(name);
	}
	close(fd);
	rmdir(path);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	if (pipe(fds))
		return 2;
	test_poll_and_select();
	test_masks();
	test_epoll();
	test_eventfd();
	test_signalfd();
	test_inotify();
	return tap_done();
}
