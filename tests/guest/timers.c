// SPDX-License-Identifier: Apache-2.0
// Clocks and timers: nanosleep, clock_nanosleep, timer_create, timerfd; coarse accuracy, never early.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <poll.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <time.h>

static volatile int count, last_value;

static void on_timer(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	last_value = info->si_code == SI_TIMER ? info->si_value.sival_int : -1;
	count++;
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t = {0};
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void test_clocks(void)
{
	int64_t previous = now_ns();
	int backwards = 0;
	for (int i = 0; i < 100000; i++) {
		int64_t now = now_ns();
		backwards += now < previous;
		previous = now;
	}
	CHECK(backwards == 0, "CLOCK_MONOTONIC never goes back");
	CHECK(clock_ns(CLOCK_REALTIME) > 1600000000LL * 1000000000, "CLOCK_REALTIME knows the year");
	CHECK(time(NULL) - clock_ns(CLOCK_REALTIME) / 1000000000 <= 1, "time agrees");
	static const clockid_t clocks[] = {CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE};
	int good = 0;
	for (size_t i = 0; i < ARRAY_SIZE(clocks); i++)
		good += clock_ns(clocks[i]) > 0;
	CHECK(good == (int)ARRAY_SIZE(clocks), "the other clocks run");
	struct timespec resolution;
	CHECK(clock_getres(CLOCK_MONOTONIC, &resolution) == 0 && resolution.tv_sec == 0 && resolution.tv_nsec <= 1000000,
	      "high resolution timers");
	CHECK(clock_gettime(12345, &resolution) == -1 && errno == EINVAL, "an unknown clock: EINVAL");
	CHECK(usleep(0) == 0, "a sleep of nothing");
}

static void test_sleep(void)
{
	static const long times_us[] = {100, 1000, 10000, 50000};
	char name[64];
	for (size_t i = 0; i < ARRAY_SIZE(times_us); i++) {
		int64_t began = now_ns();
		usleep(times_us[i]);
		long took = (now_ns() - began) / 1000;
		snprintf(name, sizeof name, "nanosleep of %ld us", times_us[i]);
		if (!CHECK(took >= times_us[i] && took < times_us[i] + 100000, name))
			tap_note("took %ld us", took);
	}
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t target = until.tv_sec * 1000000000LL + until.tv_nsec + 30000000;
	until.tv_sec = target / 1000000000;
	until.tv_nsec = target % 1000000000;
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0 && now_ns() >= target,
	      "clock_nanosleep until an absolute time");
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0, "again: at once");
}

static volatile int notified;

static void notify(union sigval value)
{
	notified = value.sival_int;
}

static void test_posix_timers(void)
{
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 99};
	timer_t timer;
	sigaction(SIGUSR1, &action, NULL);
	CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
	struct itimerspec when = {{0, 10000000}, {0, 10000000}}, left;
	int64_t began = now_ns();
	timer_settime(timer, 0, &when, NULL);
	for (int64_t end = now_ns() + 3000000000; count < 5 && now_ns() < end;)
		pause();
	CHECK(count >= 5 && now_ns() - began >= 49000000 && last_value == 99, "five periods of a signal timer with its value");
	CHECK(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 10000000, "timer_gettime");
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sleep_ms(60);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CHECK(timer_getoverrun(timer) >= 2, "blocked, it counts overruns");
	CHECK(timer_delete(timer) == 0 && timer_gettime(timer, &left) == -1 && errno == EINVAL, "timer_delete");

	struct sigevent by_thread = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = 7};
	when = (struct itimerspec){{0, 0}, {0, 5000000}};
	if (CHECK(timer_create(CLOCK_REALTIME, &by_thread, &timer) == 0, "a timer that notifies by a thread")) {
		timer_settime(timer, 0, &when, NULL);
		CHECK(wait_for(&notified, 2000) == 7, "its function runs");
		timer_delete(timer);
	}
}

static void test_timerfd(void)
{
	uint64_t expirations = 0;
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct itimerspec when = {{0, 10000000}, {0, 20000000}};
	CHECK(fd >= 0 && timerfd_settime(fd, 0, &when, NULL) == 0, "timerfd");
	CHECK(read(fd, &expirations, 8) == -1 && errno == EAGAIN, "not expired: EAGAIN");
	struct pollfd p = {fd, POLLIN, 0};
	int64_t began = now_ns();
	CHECK(poll(&p, 1, 5000) == 1 && p.revents == POLLIN && now_ns() - began < 2000000000, "poll waits for it");
	CHECK(read(fd, &expirations, 8) == 8 && expirations >= 1, "it expired");
	sleep_ms(55);
	CHECK(read(fd, &expirations, 8) == 8 && expirations >= 3, "after 55 ms at least three more periods");
	close(fd);
}

int main(void)
{
	test_clocks();
	test_sleep();
	test_posix_timers();
	test_timerfd();
	return tap_done();
}
