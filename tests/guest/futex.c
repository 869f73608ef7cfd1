// SPDX-License-Identifier: Apache-2.0
// The futex system call itself, and mechanisms based on it: process-shared and robust mutexes.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static int word, second;
static volatile int woken, ready;
static pid_t waiters[5];

static long futex(int *address, int op, int value, const struct timespec *timeout, int *address2, int value3)
{
	return syscall(SYS_futex, address, op, value, timeout, address2, value3);
}

static void *wait_once(void *expected)
{
	waiters[__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST)] = gettid();
	while (word == (int)(long)expected)
		if (futex(&word, FUTEX_WAIT, (int)(long)expected, NULL, NULL, 0) == 0)
			break;
	__atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Waits until this number of threads have continued; returns whether no others have. */
static int has_woken(int count)
{
	for (int64_t end = now_ns() + 20000000000; woken < count && now_ns() < end;)
		sleep_ms(1);
	return woken == count;
}

static void test_wait_and_wake(void)
{
	struct timespec short_time = {0, 40000000}, bad_time = {0, 2000000000};
	int64_t began = now_ns();
	CHECK(futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0) == -1 && errno == EAGAIN, "another value: EAGAIN");
	CHECK(futex(&word, FUTEX_WAIT, 0, &short_time, NULL, 0) == -1 && errno == ETIMEDOUT &&
		      now_ns() - began >= 39000000, "a wait runs out of time, not too early");
	CHECK(futex(&word, FUTEX_WAIT, 0, &bad_time, NULL, 0) == -1 && errno == EINVAL, "a bad time: EINVAL");
	CHECK(futex((int *)1, FUTEX_WAIT, 0, NULL, NULL, 0) == -1 && errno == EINVAL, "an unaligned address: EINVAL");
	CHECK(futex((int *)8, FUTEX_WAIT, 0, NULL, NULL, 0) == -1 && errno == EFAULT, "a bad address: EFAULT");
	CHECK(futex(&word, 0x55, 0, NULL, NULL, 0) == -1 && errno == ENOSYS, "an unknown operation: ENOSYS");
	CHECK(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0) == 0, "wake where nobody waits: 0");

	pthread_t threads[5];
	for (int i = 0; i < 5; i++)
		pthread_create(&threads[i], NULL, wait_once, (void *)0L);
	int asleep = 0;
	for (int i = 0; i < 5; i++) {
		for (int64_t end = now_ns() + 20000000000; !*(volatile pid_t *)&waiters[i] && now_ns() < end;)
			sleep_ms(1);
		asleep += wait_until_asleep(waiters[i]);
	}
	CHECK(asleep == 5, "five threads wait");
	CHECK(futex(&word, FUTEX_WAKE, 2, NULL, NULL, 0) == 2, "wake two of five");
	CHECK(has_woken(2), "two continue");
	CHECK(futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)(long)INT_MAX, &second, 0) == 3, "requeue the others, one woken");
	CHECK(has_woken(3), "three continued");
	CHECK(futex(&second, FUTEX_WAKE, INT_MAX, NULL, NULL, 0) == 2, "two are found at the second address");
	for (int i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	CHECK(woken == 5, "all are back");

	struct timespec absolute;
	clock_gettime(CLOCK_MONOTONIC, &absolute);
	absolute.tv_nsec += 30000000;
	if (absolute.tv_nsec >= 1000000000) {
		absolute.tv_nsec -= 1000000000;
		absolute.tv_sec++;
	}
	CHECK(futex(&word, FUTEX_WAIT_BITSET, 0, &absolute, NULL, -1) == -1 && errno == ETIMEDOUT,
	      "a wait until an absolute time");
}

struct shared {
	pthread_mutex_t mutex;
	int value;
};

static void *die_holding(void *shared)
{
	pthread_mutex_lock(&((struct shared *)shared)->mutex);
	return NULL;
}

static void test_robust(void)
{
	static struct shared shared;
	pthread_mutexattr_t attributes;
	pthread_t t;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared.mutex, &attributes);
	pthread_create(&t, NULL, die_holding, &shared);
	pthread_join(t, NULL);
	CHECK(pthread_mutex_lock(&shared.mutex) == EOWNERDEAD, "a robust mutex reports the death of its owner");
	CHECK(pthread_mutex_consistent(&shared.mutex) == 0 && pthread_mutex_unlock(&shared.mutex) == 0, "and can be made consistent");
}

/* Two processes meet in a file on tmpfs, the one kind of shared mapping that both kernels have. */
static struct shared *map_shared(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

enum { ROUNDS = 20000 };

static int add_role(const char *path)
{
	struct shared *shared = map_shared(path);
	if (!shared)
		return 1;
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&shared->mutex);
		shared->value++;
		pthread_mutex_unlock(&shared->mutex);
	}
	return 0;
}

static void test_process_shared(void)
{
	const char *directory = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
	char path[64];
	snprintf(path, sizeof path, "%s/nabla-futex-%d", directory, getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(struct shared)))
		return;
	close(fd);
	struct shared *shared = map_shared(path);
	if (!CHECK(shared != NULL, "a file on tmpfs is mapped shared"))
		return;
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&shared->mutex, &attributes);
	pid_t first = start_role("add", path), other = start_role("add", path);
	int good = exited_with(wait_status(first), 0) + exited_with(wait_status(other), 0);
	CHECK(good == 2 && shared->value == 2 * ROUNDS, "a mutex shared by two processes keeps their count right");
	munmap(shared, sizeof *shared);
	unlink(path);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "add"))
		return add_role(argv[2]);
	test_wait_and_wake();
	test_robust();
	test_process_shared();
	return tap_done();
}
