// SPDX-License-Identifier: Apache-2.0
// Reservations: more addresses than there is memory. Touched pages become memory and are counted; the rest costs nothing,
// reads as zeros, and is refused if it is PROT_NONE. Each way to pass such memory to the kernel is tried with untouched
// pages.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define GB (1024UL * MB)

static long status_bytes(const char *key)
{
	return number_after("/proc/self/status", key) * 1024;
}

static long memory_bytes(const char *key)
{
	return number_after("/proc/meminfo", key) * 1024;
}

static char *reserve(size_t size, int protection)
{
	return mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void test_reservation(void)
{
	long rss = status_bytes("VmRSS:");
	char *p = reserve(4 * GB, PROT_NONE);
	if (!CHECK(p != MAP_FAILED, "4 GB of addresses"))
		return;
	CHECK(status_bytes("VmRSS:") - rss < MB && status_bytes("VmSize:") > (long)(4 * GB), "take no memory");
	CHECK(reading(p) == SEGV_ACCERR && writing(p + 2 * GB + 17) == SEGV_ACCERR && running(p + 3 * GB) == SEGV_ACCERR,
	      "and cannot be touched");
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), pipes[2];
	CHECK(read(fd, p + GB, 10) == -1 && errno == EFAULT, "nor can the kernel write there");
	CHECK(pipe(pipes) == 0 && write(pipes[1], p + GB, 10) == -1 && errno == EFAULT, "or read there");
	CHECK(mprotect(p + GB, 2 * MB, PROT_READ | PROT_WRITE) == 0 && all_bytes(p + GB, 2 * MB, 0),
	      "a part that is opened reads as zeros");
	memset(p + GB, 0x77, 2 * MB);
	CHECK(reading(p + GB - 1) == SEGV_ACCERR && reading(p + GB + 2 * MB) == SEGV_ACCERR, "no more than that is opened");
	long more = status_bytes("VmRSS:") - rss;
	CHECK(more >= 2 * MB && more < 4 * MB, "what was touched is counted");
	CHECK(madvise(p + GB, MB, MADV_DONTNEED) == 0 && all_bytes(p + GB, MB, 0) && all_bytes(p + GB + MB, MB, 0x77),
	      "MADV_DONTNEED makes it zeros again");
	CHECK(mmap(p + GB + MB, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
			      p + GB + MB &&
		      all_bytes(p + GB, 2 * MB, 0),
	      "so does a mapping over it");
	CHECK(munmap(p + GB, GB) == 0 && reading(p + GB + 4 * MB) == SEGV_MAPERR, "a part is unmapped");
	CHECK(mprotect(p + 2 * GB, PAGE, PROT_READ | PROT_WRITE) == 0 && !writing(p + 2 * GB) &&
		      mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0 && !writing(p), "what is on both sides stays");
	CHECK(munmap(p, 4 * GB) == 0 && status_bytes("VmRSS:") - rss < MB, "all of it is unmapped, over the hole");
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_sparse(void)
{
	enum { STEP = 16 * MB };
	long rss = status_bytes("VmRSS:");
	char *p = reserve(2 * GB, PROT_READ | PROT_WRITE);
	if (!CHECK(p != MAP_FAILED, "2 GB that can be written to"))
		return;
	int zeros = 1, right = 1;
	for (size_t at = 0; at < 2 * GB; at += STEP) {
		zeros = zeros && !p[at + 5000];
		memcpy(p + at + 5000, &at, sizeof at);
	}
	for (size_t at = 0; at < 2 * GB; at += STEP)
		right = right && !memcmp(p + at + 5000, &at, sizeof at);
	CHECK(zeros && right, "every 16 MB of it holds what was written");
	long more = status_bytes("VmRSS:") - rss;
	CHECK(more > 0 && more <= (long)(2 * GB / STEP * 64 * KB), "in at most 64 KB each");
	size_t first = 0;
	char *q = mremap(p, 2 * GB, 3 * GB, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && !memcmp(q + 5000, &first, sizeof first) && !q[3 * GB - 1], "it grows");
	if (q == MAP_FAILED)
		q = p;
	CHECK(mremap(q, 3 * GB, GB, 0) == q && reading(q + GB + 2 * MB) == SEGV_MAPERR && !reading(q + GB - 1), "and shrinks");
	munmap(q, GB);
	q = reserve(GB, PROT_READ | PROT_WRITE);
	CHECK(q != MAP_FAILED && all_bytes(q + 5000, PAGE, 0) && all_bytes(q + STEP + 5000, PAGE, 0),
	      "the next one reads as zeros again");
	munmap(q, GB);
}

/* Each access of the kernel below is the first one to its page. */
static void test_kernel(void)
{
	char *p = reserve(64 * MB, PROT_READ | PROT_WRITE), *at = p;
	int pipes[2], fd = memfd_create("numbers", MFD_CLOEXEC);
	char text[PAGE];
	if (!CHECK(p != MAP_FAILED && pipe(pipes) == 0 && fd >= 0, "memory that nobody has touched"))
		return;
	memset(text, 'x', sizeof text);
	CHECK(write(fd, text, sizeof text) == PAGE && pread(fd, at += MB, PAGE, 0) == PAGE && all_bytes(at, PAGE, 'x'),
	      "read");
	CHECK(write(pipes[1], at += MB, 100) == 100 && read(pipes[0], text, 100) == 100 && all_bytes(text, 100, 0),
	      "write");
	struct iovec parts[2] = {{at += MB, 10}, {at += MB, 10}};
	CHECK(preadv(fd, parts, 2, 0) == 20 && !memcmp(at, "xxxxxxxxxx", 11), "preadv");
	CHECK(writev(pipes[1], (struct iovec[]){{at += MB, 7}}, 1) == 7 && read(pipes[0], text, 7) == 7, "writev");
	memcpy(at += MB, "spliced", 8);
	struct iovec one = {at, 8};
	CHECK(vmsplice(pipes[1], &one, 1, 0) == 8 && memset(at, 'y', 8) && read(pipes[0], text, 8) == 8 &&
		      !memcmp(text, no_mmu() ? "spliced" : "yyyyyyy", 7), "vmsplice copies without an MMU");
	one = (struct iovec){at += MB, PAGE};
	CHECK(vmsplice(pipes[1], &one, 1, 0) == PAGE && read(pipes[0], text, PAGE) == PAGE && all_bytes(text, PAGE, 0),
	      "also what nobody has touched");
	struct iovec local = {text, 8}, remote = {at += MB, 8};
	memcpy(text, "written", 8);
	CHECK(process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == 8 && !strcmp(at, "written"), "process_vm_writev");
	remote.iov_base = at += MB;
	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 8 && all_bytes(text, 8, 0), "process_vm_readv");
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	CHECK(pwrite(memory, "by file", 8, (off_t)(at += MB)) == 8 && !strcmp(at, "by file"), "/proc/self/mem");
	CHECK(pread(memory, text, 8, (off_t)(at += MB)) == 8 && all_bytes(text, 8, 0), "and to read");
	close(memory);
	struct timespec soon = {0, 1000};
	CHECK(syscall(SYS_futex, at += MB, FUTEX_WAIT_PRIVATE, 0, &soon) == -1 && errno == ETIMEDOUT &&
		      syscall(SYS_futex, at += MB, FUTEX_WAIT, 0, &soon) == -1 && errno == ETIMEDOUT, "futex");
	CHECK(clock_gettime(CLOCK_REALTIME, (struct timespec *)(at += MB)) == 0 && *(long *)at, "clock_gettime");
	at += MB;
	CHECK(getcwd(at, PAGE) == at && *at == '/', "getcwd");
	int direct = open("/root/window", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
	CHECK(direct >= 0 && memset(at += MB, 'd', PAGE) && pwrite(direct, at, PAGE, 0) == PAGE &&
		      pread(direct, at += MB, PAGE, 0) == PAGE && all_bytes(at, PAGE, 'd'), "O_DIRECT");
	close(direct);
	unlink("/root/window");
	mprotect(at += MB, PAGE, PROT_NONE);
	CHECK(pread(fd, at - PAGE, 2 * PAGE, 0) <= PAGE && reading(at) == SEGV_ACCERR, "a part stays closed");
	CHECK(sigaltstack(&(stack_t){.ss_sp = at += MB, .ss_size = MB}, NULL) == 0 && raise(SIGUSR1) == 0 &&
		      !all_bytes(at + MB - 16 * KB, 16 * KB, 0),
	      "a signal's frame");
	sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
	munmap(p, 64 * MB);
}

static void on_usr1(int sig)
{
	volatile char frame[2000];
	memset((char *)frame, sig, sizeof frame);
}

static void *count_up(void *counter)
{
	for (int i = 0; i < 1000; i++)
		__sync_fetch_and_add((int *)counter, 1);
	return counter;
}

static void test_threads(void)
{
	enum { THREADS = 20 };
	char *p = reserve(GB, PROT_READ | PROT_WRITE);
	pthread_t threads[THREADS];
	pthread_attr_t attributes;
	int started = 0;
	if (!CHECK(p != MAP_FAILED, "addresses for stacks"))
		return;
	pthread_attr_init(&attributes);
	for (int i = 0; i < THREADS; i++)
		if (!pthread_attr_setstack(&attributes, p + (size_t)i * 32 * MB, 8 * MB) &&
		    !pthread_create(&threads[i], &attributes, count_up, p + GB - PAGE))
			started++;
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	CHECK(started == THREADS && *(int *)(p + GB - PAGE) == THREADS * 1000, "20 threads with 8 MB of stack each");
	munmap(p, GB);
}

static void test_fork(void)
{
	char *p = reserve(GB, PROT_READ | PROT_WRITE);
	int pipes[2], status = -1;
	if (!CHECK(p != MAP_FAILED && pipe(pipes) == 0, "a reservation to fork with"))
		return;
	memset(p, 'a', MB);
	pid_t child = fork();
	if (!child) {
		char byte;
		int good = all_bytes(p, MB, 'a') && all_bytes(p + 8 * MB, MB, 0);
		memset(p, 'c', MB / 2);
		memset(p + 16 * MB, 'c', MB);
		good = good && read(pipes[0], &byte, 1) == 1;
		good = good && all_bytes(p, MB / 2, 'c') && all_bytes(p + MB / 2, MB / 2, 'a');
		good = good && all_bytes(p + 8 * MB, MB, 0) && all_bytes(p + 16 * MB, MB, 'c') &&
		       all_bytes(p + 32 * MB, MB, 0);
		_exit(!good);
	}
	memset(p + 8 * MB, 'p', MB);
	memset(p + 32 * MB, 'p', MB);
	CHECK(write(pipes[1], "", 1) == 1 && waitpid(child, &status, 0) == child && status == 0,
	      "a child has its own contents, also where one of the two touches first");
	CHECK(all_bytes(p, MB, 'a') && all_bytes(p + 8 * MB, MB, 'p') && all_bytes(p + 16 * MB, MB, 0) &&
		      all_bytes(p + 32 * MB, MB, 'p'), "and so has its parent");
	child = fork();
	if (!child) {
		munmap(p, 32 * MB);
		_exit(!all_bytes(p + 32 * MB, MB, 'p'));
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0 && all_bytes(p + 8 * MB, MB, 'p'),
	      "a child unmaps a part, its parent keeps it");
	child = fork();
	if (!child)
		_exit(run_role("child", NULL) != 0);
	CHECK(waitpid(child, &status, 0) == child && status == 0, "a child of a child starts a program");
	munmap(p, GB);
	close(pipes[0]);
	close(pipes[1]);
}

/* Takes more memory than exists, by touching it; ends by a signal. */
static void eat(size_t step)
{
	char *p = reserve(24 * GB, PROT_READ | PROT_WRITE);
	for (size_t at = 0; p != MAP_FAILED && at < 24 * GB; at += step)
		p[at] = 1;
}

static void test_eaters(void)
{
	const size_t steps[] = {PAGE, 64 * KB, MB, PAGE, 4 * MB, PAGE};
	/* the kernel may keep two stacks for the next programs */
	long before = memory_bytes("MemAvailable:"), stacks = memory_bytes("MemTotal:") / 32;
	long least = before - 6 * MB - (stacks < 16 * MB ? stacks : 16 * MB);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		pid_t child = fork();
		if (!child) {
			eat(steps[i]);
			_exit(0);
		}
		int status = wait_status(child);
		CHECK(killed_by(status, SIGKILL), "who touches more than there is ends");
		char *p = reserve(GB, PROT_NONE);
		CHECK(p != MAP_FAILED && mprotect(p + MB, MB, PROT_READ | PROT_WRITE) == 0 &&
			      all_bytes(p + MB, MB, 0) && memset(p + MB, 1, MB), "and there is memory again");
		munmap(p, GB);
		CHECK(memory_bytes("MemAvailable:") > least, "all of it");
		CHECK(run_role("child", NULL) == 0, "a program starts");
	}
	char *p = mmap(NULL, before / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED && memset(p, 1, before / 2), "half of the memory is available in one piece");
	munmap(p, before / 2);
}

static void test_limit(void)
{
	struct rlimit old, limit;
	getrlimit(RLIMIT_AS, &old);
	limit = old;
	limit.rlim_cur = 2 * GB;
	setrlimit(RLIMIT_AS, &limit);
	CHECK(reserve(3 * GB, PROT_NONE) == MAP_FAILED && errno == ENOMEM, "RLIMIT_AS limits reservations");
	setrlimit(RLIMIT_AS, &old);
	CHECK(reserve(1UL << 47, PROT_NONE) == MAP_FAILED && errno == ENOMEM, "so does the size of the address space");
}

/* Random mappings, openings, changes and ends, checked against a model of their contents. */
static void test_random(void)
{
	enum { AREAS = 12, PAGES = 512, ROUNDS = 20000 };
	static struct area {
		char *at;
		size_t pages;
		unsigned char page[PAGES]; // the value of its bytes
	} areas[AREAS];
	unsigned state = 20260101;
	int wrong = 0, rounds = 0;
#define RANDOM(n) ((state = state * 1103515245 + 12345) >> 10) % (unsigned)(n)
	for (; rounds < ROUNDS && !wrong; rounds++) {
		struct area *a = &areas[RANDOM(AREAS)];
		if (!a->at) {
			a->pages = PAGES / 2 + RANDOM(PAGES / 2);
			a->at = reserve(a->pages * PAGE, PROT_READ | PROT_WRITE);
			memset(a->page, 0, sizeof a->page);
			if (a->at == MAP_FAILED)
				a->at = NULL;
			continue;
		}
		size_t first = RANDOM(a->pages), n = 1 + RANDOM(a->pages - first);
		if (n > 40 && RANDOM(4))
			n = 40;
		switch (RANDOM(8)) {
		case 0:
			for (size_t i = 0; i < a->pages; i += 7)
				wrong |= !all_bytes(a->at + i * PAGE, 64, a->page[i]);
			break;
		case 1:
			wrong |= madvise(a->at + first * PAGE, n * PAGE, MADV_DONTNEED) != 0;
			memset(a->page + first, 0, n);
			break;
		case 2:
			wrong |= mmap(a->at + first * PAGE, n * PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != a->at + first * PAGE;
			memset(a->page + first, 0, n);
			break;
		case 3: // its end
			wrong |= munmap(a->at + first * PAGE, (a->pages - first) * PAGE) != 0;
			a->pages = first;
			if (!first)
				a->at = NULL;
			break;
		case 4: {
			size_t pages = a->pages + RANDOM(PAGES - a->pages + 1);
			char *q = mremap(a->at, a->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
			if (q == MAP_FAILED)
				break;
			memset(a->page + a->pages, 0, pages - a->pages);
			a->at = q;
			a->pages = pages;
			break;
		}
		default:
			for (size_t i = first; i < first + n; i++) {
				wrong |= !all_bytes(a->at + i * PAGE, PAGE, a->page[i]);
				memset(a->at + i * PAGE, a->page[i] = 1 + RANDOM(200), PAGE);
			}
		}
	}
	if (!CHECK(!wrong, "random mappings hold what was written"))
		tap_note("round %d", rounds);
	for (size_t i = 0; i < AREAS; i++)
		if (areas[i].at)
			munmap(areas[i].at, areas[i].pages * PAGE);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "child"))
		return 0;
	struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
	sigaction(SIGUSR1, &action, NULL);
	handle(0);
	test_reservation();
	test_sparse();
	test_kernel();
	test_threads();
	test_fork();
	test_limit();
	test_random();
	if (no_mmu()) // on a host, this would take all memory
		test_eaters();
	return tap_done();
}
