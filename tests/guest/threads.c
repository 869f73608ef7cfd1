// SPDX-License-Identifier: Apache-2.0
// POSIX threads: creation and joining, mutexes, conditions, thread-local storage, detached ends, storms.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static volatile int counter, finished;

static void *increment(void *rounds)
{
	for (long i = 0; i < (long)rounds; i++) {
		pthread_mutex_lock(&lock);
		counter++;
		pthread_mutex_unlock(&lock);
	}
	return (void *)((long)rounds + 1);
}

static void test_mutex(void)
{
	pthread_t threads[8];
	void *result;
	int good = 0;
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, increment, (void *)20000L);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &result);
		good += (long)result == 20001;
	}
	CHECK(good == 8, "eight threads return their results");
	CHECK(counter == 160000, "and no increment under the mutex is lost");

	pthread_mutexattr_t attributes;
	pthread_mutex_t recursive, checked;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&recursive, &attributes);
	CHECK(!pthread_mutex_lock(&recursive) && !pthread_mutex_lock(&recursive) && !pthread_mutex_unlock(&recursive) &&
		      !pthread_mutex_unlock(&recursive), "a recursive mutex");
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&checked, &attributes);
	CHECK(!pthread_mutex_lock(&checked) && pthread_mutex_lock(&checked) == EDEADLK, "an error-checking mutex: EDEADLK");
	CHECK(pthread_mutex_trylock(&checked) == EBUSY, "trylock: EBUSY");
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 30000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&held);
	CHECK(pthread_mutex_timedlock(&held, &until) == ETIMEDOUT, "timedlock: ETIMEDOUT");
}

/* A queue of one place between two producers and two consumers. */
static int slot, slot_full, produced, consumed;
static long consumed_sum;
enum { ITEMS = 5000 };

static void *produce(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&lock);
		while (slot_full && produced < ITEMS)
			pthread_cond_wait(&changed, &lock);
		if (produced >= ITEMS) {
			pthread_mutex_unlock(&lock);
			return unused;
		}
		slot = ++produced;
		slot_full = 1;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
}

static void *consume(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&lock);
		while (!slot_full && consumed < ITEMS)
			pthread_cond_wait(&changed, &lock);
		if (consumed >= ITEMS) {
			pthread_mutex_unlock(&lock);
			return unused;
		}
		consumed++;
		consumed_sum += slot;
		slot_full = 0;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
}

static void test_conditions(void)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, i & 1 ? produce : consume, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(consumed == ITEMS && consumed_sum == (long)ITEMS * (ITEMS + 1) / 2,
	      "condition variables carry 5000 items between four threads");
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec -= 1;
	pthread_mutex_lock(&lock);
	CHECK(pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT, "timedwait in the past: ETIMEDOUT");
	pthread_mutex_unlock(&lock);
}

static __thread int local = 5;
static __thread char local_block[5000];
static pthread_key_t key;
static volatile int destroyed;

static void destroy(void *value)
{
	if ((long)value == 77)
		__atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
}

static void *use_local(void *number)
{
	int good = local == 5;
	for (size_t i = 0; i < sizeof local_block; i++)
		good &= local_block[i] == 0;
	memset(local_block, (int)(long)number, sizeof local_block);
	local = (int)(long)number;
	pthread_setspecific(key, (void *)77);
	for (int i = 0; i < 200; i++) {
		sched_yield();
		good &= local == (int)(long)number && local_block[i] == (char)(long)number;
	}
	errno = (int)(long)number;
	sched_yield();
	good &= errno == (int)(long)number;
	return (void *)(long)good;
}

static void test_local_storage(void)
{
	pthread_t threads[6];
	void *result;
	int good = 0;
	pthread_key_create(&key, destroy);
	for (long i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, use_local, (void *)(i + 10));
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], &result);
		good += (long)result;
	}
	CHECK(good == 6 && local == 5, "thread-local variables and errno belong to their thread");
	CHECK(destroyed == 6, "the destructors of thread-specific data ran");
}

static void *finish(void *unused)
{
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
	return unused;
}

static int tasks_alive(void)
{
	char text[512] = "";
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC), count = -1;
	if (read(fd, text, sizeof text - 1) > 0) {
		char *field = strrchr(text, ')') + 2; // field 3; num_threads is field 20
		for (int i = 3; i < 20 && field; i++)
			field = strchr(field, ' ') + 1;
		count = atoi(field);
	}
	close(fd);
	return count;
}

static void test_detached(void)
{
	enum { DETACHED = 200 };
	pthread_attr_t attributes;
	pthread_t t;
	int created = 0;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	for (int i = 0; i < DETACHED; i++) {
		created += pthread_create(&t, &attributes, finish, NULL) == 0;
		if (i % 20 == 19)
			sleep_ms(1);
	}
	for (int64_t end = now_ns() + 50000000000; (finished < created || tasks_alive() > 1) && now_ns() < end;)
		sleep_ms(2);
	CHECK(created == DETACHED && finished == DETACHED, "200 detached threads run to their end");
	CHECK(tasks_alive() == 1, "and are gone");
	pthread_attr_destroy(&attributes);
}

static void *return_argument(void *argument)
{
	return argument;
}

static void test_storm(void)
{
	enum { ROUNDS = 50, WIDTH = 20 };
	pthread_t threads[WIDTH];
	long good = 0;
	for (int round = 0; round < ROUNDS; round++) {
		int started = 0;
		for (long i = 0; i < WIDTH; i++)
			started += pthread_create(&threads[i], NULL, return_argument, (void *)i) == 0;
		for (long i = 0; i < started; i++) {
			void *result;
			good += pthread_join(threads[i], &result) == 0 && (long)result == i;
		}
	}
	CHECK(good == ROUNDS * WIDTH, "1000 threads, twenty at a time");
}

static pthread_barrier_t barrier;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore;
static volatile int once_count, serial_count, readers, readers_most;

static void only_once(void)
{
	once_count++;
}

static void *meet(void *unused)
{
	pthread_once(&once, only_once);
	for (int i = 0; i < 100; i++)
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&serial_count, 1, __ATOMIC_SEQ_CST);
	pthread_rwlock_rdlock(&rwlock);
	int now = __atomic_add_fetch(&readers, 1, __ATOMIC_SEQ_CST);
	if (now > readers_most)
		readers_most = now;
	/* the first reader stays until there is another one */
	for (int64_t end = now_ns() + 20000000000; readers_most < 2 && now_ns() < end;)
		sleep_ms(1);
	__atomic_sub_fetch(&readers, 1, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&rwlock);
	sem_post(&semaphore);
	return unused;
}

static void test_other_primitives(void)
{
	pthread_t threads[4];
	pthread_barrier_init(&barrier, NULL, 4);
	sem_init(&semaphore, 0, 0);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, meet, NULL);
	for (int i = 0; i < 4; i++)
		sem_wait(&semaphore);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(once_count == 1, "pthread_once");
	CHECK(serial_count == 100, "a barrier passed 100 times");
	CHECK(readers_most > 1, "readers share a read-write lock");
	CHECK(sem_trywait(&semaphore) == -1 && errno == EAGAIN, "the semaphore was posted four times, not five");
}

static void *exit_thread(void *unused)
{
	pthread_exit((void *)0x123);
	return unused;
}

static void *tell_tid(void *unused)
{
	(void)unused;
	return (void *)syscall(SYS_gettid);
}

static void test_identity(void)
{
	pthread_t t;
	void *result;
	pthread_create(&t, NULL, exit_thread, NULL);
	pthread_join(t, &result);
	CHECK(result == (void *)0x123, "pthread_exit gives a result");
	pthread_create(&t, NULL, tell_tid, NULL);
	pthread_join(t, &result);
	CHECK((long)result != syscall(SYS_gettid) && (long)result > 0, "a thread has its own id");

	pthread_attr_t attributes;
	size_t size = 0;
	pthread_attr_init(&attributes);
	CHECK(!pthread_attr_setstacksize(&attributes, 1 << 20) && !pthread_create(&t, &attributes, tell_tid, NULL) &&
		      !pthread_join(t, NULL), "a thread with a stack of 1 MB");
	pthread_getattr_np(pthread_self(), &attributes);
	CHECK(pthread_attr_getstacksize(&attributes, &size) == 0 && size >= 16384, "pthread_getattr_np of the main thread");
}

static void *end_process(void *unused)
{
	(void)unused;
	exit(12);
}

static int role(const char *name)
{
	pthread_t t;
	if (!strcmp(name, "exit-in-thread")) {
		pthread_create(&t, NULL, end_process, NULL);
		for (;;)
			pause();
	}
	if (!strcmp(name, "main-leaves")) { // the process ends with its last thread, status 0
		pthread_create(&t, NULL, return_argument, NULL);
		pthread_exit(NULL);
	}
	return 99;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return role(argv[1]);
	test_mutex();
	test_conditions();
	test_local_storage();
	test_detached();
	test_storm();
	test_other_primitives();
	test_identity();
	CHECK(exited_with(run_role("exit-in-thread", NULL), 12), "exit in a thread ends the process");
	CHECK(exited_with(run_role("main-leaves", NULL), 0), "the main thread may leave first");
	return tap_done();
}
