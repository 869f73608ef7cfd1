// SPDX-License-Identifier: Apache-2.0
// pthread_cancel: in blocking calls, also when a handler with SA_RESTART interrupts them; disabled, asynchronous,
// with clean-up handlers; and that a canceled call has no side effect.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int fds[2];
/* The thread that is about to block, and how many signals it has handled. */
static volatile int ready, handled, cleaned;

static void *block_in_read(void *unused)
{
	char byte;
	ready = gettid();
	return read(fds[0], &byte, 1) < 0 ? NULL : unused;
}

static void *block_in_nanosleep(void *unused)
{
	ready = gettid();
	nanosleep(&(struct timespec){100, 0}, NULL);
	return unused;
}

static void *block_in_semaphore(void *unused)
{
	sem_t never;
	sem_init(&never, 0, 0);
	ready = gettid();
	sem_wait(&never);
	return unused;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

static void unlock(void *mutex)
{
	cleaned = pthread_mutex_unlock(mutex) == 0;
}

static void *block_in_condition(void *unused)
{
	pthread_mutex_lock(&lock);
	pthread_cleanup_push(unlock, &lock);
	ready = gettid();
	pthread_cond_wait(&never, &lock);
	pthread_cleanup_pop(1);
	return unused;
}

static void *block_in_pause(void *unused)
{
	ready = gettid();
	pause();
	return unused;
}

static void *block_in_poll(void *unused)
{
	struct pollfd p = {fds[0], POLLIN, 0};
	ready = gettid();
	poll(&p, 1, -1);
	return unused;
}

static void *block_in_accept(void *unused)
{
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr autobind = {.sa_family = AF_UNIX};
	bind(s, &autobind, sizeof autobind.sa_family);
	listen(s, 1);
	ready = gettid();
	accept(s, NULL, NULL);
	return unused;
}

static void *block_in_waitpid(void *pid)
{
	ready = gettid();
	waitpid((int)(long)pid, NULL, 0);
	return NULL;
}

static pthread_t eternal;

static void *block_in_join(void *unused)
{
	ready = gettid();
	pthread_join(eternal, NULL);
	return unused;
}

static void on_signal(int signal)
{
	(void)signal;
	handled++;
}

/* Cancels a thread and joins it. */
static int cancel(pthread_t t)
{
	void *result = NULL;
	int64_t began = now_ns();
	pthread_cancel(t);
	pthread_join(t, &result);
	return result == PTHREAD_CANCELED && now_ns() - began < 50000000000;
}

/* Starts the thread, lets it block, optionally interrupts it by a restarting signal, cancels it, joins it. */
static int cancelled(void *(*start)(void *), void *argument, int interrupt)
{
	pthread_t t;
	ready = handled = 0;
	if (pthread_create(&t, NULL, start, argument))
		return 0;
	wait_for(&ready, 20000);
	int asleep = wait_until_asleep(ready);
	for (int i = 0; i < interrupt; i++) {
		pthread_kill(t, SIGUSR1);
		for (int64_t end = now_ns() + 20000000000; handled <= i && now_ns() < end;)
			sleep_ms(1);
		asleep &= wait_until_asleep(ready);
	}
	return cancel(t) && asleep && handled == interrupt;
}

static void test_blocking_calls(void)
{
	static const struct {
		const char *name;
		void *(*start)(void *);
	} calls[] = {
		{"read", block_in_read},	  {"nanosleep", block_in_nanosleep},
		{"sem_wait", block_in_semaphore}, {"pthread_cond_wait", block_in_condition},
		{"pause", block_in_pause},	  {"poll", block_in_poll},
		{"accept", block_in_accept},
	};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	char name[96];
	sigaction(SIGUSR1, &action, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		snprintf(name, sizeof name, "cancel in %s", calls[i].name);
		CHECK(cancelled(calls[i].start, NULL, 0), name);
	}
	CHECK(cleaned, "the clean-up handler of the condition wait held the mutex");
	CHECK(cancelled(block_in_read, NULL, 5), "cancel in read after signals with SA_RESTART");
	CHECK(cancelled(block_in_semaphore, NULL, 5), "cancel in sem_wait after signals with SA_RESTART");
	CHECK(cancelled(block_in_condition, NULL, 5), "cancel in pthread_cond_wait after signals with SA_RESTART");
	pid_t child = start_role("pause", NULL);
	CHECK(cancelled(block_in_waitpid, (void *)(long)child, 5), "cancel in waitpid after signals with SA_RESTART");
	kill(child, SIGKILL);
	wait_status(child);

	pthread_create(&eternal, NULL, block_in_pause, NULL);
	CHECK(cancelled(block_in_join, NULL, 0), "cancel in pthread_join");
	pthread_cancel(eternal);
	pthread_join(eternal, NULL);
}

static volatile long progress;

static void *spin(void *type)
{
	pthread_setcanceltype((int)(long)type, NULL);
	ready = gettid();
	for (;;)
		progress++;
	return NULL;
}

static void *guarded(void *unused)
{
	char byte;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	ready = gettid();
	ssize_t n = read(fds[0], &byte, 1);
	progress = n == 1;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	pthread_testcancel();
	return unused;
}

static int order;

static void note_order(void *digit)
{
	order = order * 10 + (int)(long)digit;
}

static void *with_cleanups(void *unused)
{
	pthread_cleanup_push(note_order, (void *)1L);
	pthread_cleanup_push(note_order, (void *)2L);
	ready = gettid();
	pause();
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return unused;
}

static void test_modes(void)
{
	pthread_t t;
	void *result = NULL;
	ready = 0;
	pthread_create(&t, NULL, spin, (void *)PTHREAD_CANCEL_ASYNCHRONOUS);
	wait_for(&ready, 20000);
	CHECK(cancel(t), "asynchronous cancel of a spinning thread");

	ready = progress = 0;
	pthread_create(&t, NULL, guarded, NULL);
	wait_for(&ready, 20000);
	CHECK(wait_until_asleep(ready) && pthread_cancel(t) == 0 && wait_until_asleep(ready), "a thread that disables it");
	CHECK(write(fds[1], "x", 1) == 1 && pthread_join(t, &result) == 0 && progress == 1 && result == PTHREAD_CANCELED,
	      "while disabled a cancel waits: the read finishes first");

	CHECK(cancelled(with_cleanups, NULL, 0) && order == 21, "clean-up handlers run, the last one first");
}

static volatile long taken;

static void *take_bytes(void *unused)
{
	char byte;
	while (read(fds[0], &byte, 1) == 1)
		taken++;
	return unused;
}

/* A byte must be either counted or still in the pipe, wherever the cancel hits. */
static void test_no_byte_lost(void)
{
	long lost = 0;
	for (int round = 0; round < 200; round++) {
		pthread_t t;
		char rest[64];
		taken = 0;
		pthread_create(&t, NULL, take_bytes, NULL);
		long written = 0;
		for (int i = 0; i < 20; i++)
			written += write(fds[1], "y", 1);
		if (round % 2)
			sched_yield();
		pthread_cancel(t);
		pthread_join(t, NULL);
		int left = 0;
		if (ioctl(fds[0], FIONREAD, &left) == 0 && left > 0)
			left = read(fds[0], rest, sizeof rest);
		lost += written - taken - left;
	}
	CHECK(lost == 0, "200 cancels of a reader: no byte lost");
}

static void *nothing(void *unused)
{
	return unused;
}

static void test_storm(void)
{
	int good = 0;
	for (int i = 0; i < 300; i++) {
		pthread_t t;
		void *result = NULL;
		if (pthread_create(&t, NULL, i % 3 ? block_in_pause : nothing, NULL))
			continue;
		pthread_cancel(t);
		pthread_join(t, &result);
		good += result == PTHREAD_CANCELED || (i % 3 == 0 && !result);
	}
	CHECK(good == 300, "300 threads canceled as they start");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "pause"))
		for (;;)
			pause();
	if (pipe(fds))
		return 2;
	test_blocking_calls();
	test_modes();
	test_storm();
	test_no_byte_lost();
	return tap_done();
}
