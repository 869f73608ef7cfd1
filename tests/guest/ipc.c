// SPDX-License-Identifier: Apache-2.0
// Communication between processes beside pipes and sockets: System V, POSIX queues, memory of other processes.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define SIZE 100000

static void test_segments(void)
{
	char text[24];
	int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	char *memory = shmat(id, NULL, 0);
	CHECK(id >= 0 && memory != (void *)-1, "a shared segment");
	CHECK(memory[0] == 0 && memory[SIZE - 1] == 0, "is zero at first");
	snprintf(text, sizeof text, "%d", id);
	CHECK(exited_with(run_role("attach", text), 0) && memory[SIZE - 1] == 'x', "another program writes to it");
	struct shmid_ds state;
	CHECK(shmctl(id, IPC_STAT, &state) == 0 && state.shm_nattch == 1 && state.shm_segsz == SIZE, "IPC_STAT");
	CHECK(shmdt(memory) == 0 && shmctl(id, IPC_RMID, NULL) == 0 && shmat(id, NULL, 0) == (void *)-1, "it is gone");
}

/* Relatives have separate contents of private memory; a segment has one for all, whichever process attached it, and when. */
static void test_segments_of_relatives(void)
{
	int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	char *before = shmat(id, NULL, 0);
	static char own = 'p';
	struct shmid_ds state;
	memset(before, 'p', SIZE);
	pid_t pid = fork();
	if (pid == 0) {
		own = 'c';
		memset(before, 'c', SIZE / 2);
		if (shmctl(id, IPC_STAT, &state) || state.shm_nattch != 2 || shmdt(before))
			_exit(1);
		char *after = shmat(id, NULL, 0);
		if (after == (void *)-1 || after[0] != 'c' || after[SIZE - 1] != 'p' || own != 'c')
			_exit(2);
		after[SIZE - 1] = 'a';
		_exit(0);
	}
	CHECK(exited_with(wait_status(pid), 0), "a forked child uses a segment of its parent and attaches it again");
	CHECK(own == 'p' && before[0] == 'c' && before[SIZE / 2 - 1] == 'c' && before[SIZE / 2] == 'p' &&
		      before[SIZE - 1] == 'a',
	      "the parent sees what the child wrote");
	CHECK(shmctl(id, IPC_STAT, &state) == 0 && state.shm_nattch == 1, "one attachment is left");
	CHECK(shmctl(id, IPC_RMID, NULL) == 0, "the segment is removed while it is attached");
	pid = fork();
	if (pid == 0)
		_exit(before[0] == 'c' && (before[0] = 'd') == 'd' ? 0 : 1);
	CHECK(exited_with(wait_status(pid), 0) && before[0] == 'd', "children still share it");
	CHECK(shmdt(before) == 0 && shmctl(id, IPC_STAT, &state) == -1, "it ends with its last attachment");
}

/* Undo of semaphores belongs to a process, and is not inherited. */
static void test_undo_of_relatives(void)
{
	int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	struct sembuf give_back = {.sem_num = 0, .sem_op = 1, .sem_flg = SEM_UNDO}, wait_zero = {.sem_num = 0, .sem_op = 0};
	CHECK(id >= 0 && semop(id, &give_back, 1) == 0, "an operation with SEM_UNDO");
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	CHECK(exited_with(wait_status(pid), 0) && semctl(id, 0, GETVAL) == 1, "stays when a forked child ends");
	pid = fork();
	if (pid == 0) {
		semop(id, &give_back, 1);
		raise(SIGKILL);
	}
	CHECK(killed_by(wait_status(pid), SIGKILL) && semctl(id, 0, GETVAL) == 1, "a killed child's is undone");
	semctl(id, 0, SETVAL, 1);
	pid = fork();
	if (pid == 0)
		_exit(semop(id, &wait_zero, 1) ? 1 : 0);
	struct sembuf take = {.sem_num = 0, .sem_op = -1};
	CHECK(semop(id, &take, 1) == 0 && exited_with(wait_status(pid), 0), "a child waits for its parent");
	semctl(id, 0, IPC_RMID);
}

static int attach(const char *id)
{
	char *memory = shmat(atoi(id), NULL, 0);
	if (memory == (void *)-1)
		return 1;
	memory[SIZE - 1] = 'x';
	return shmdt(memory) ? 2 : 0;
}

static void test_semaphores(void)
{
	char text[24];
	int id = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
	struct sembuf take = {.sem_num = 0, .sem_op = -1};
	CHECK(id >= 0 && semctl(id, 0, SETVAL, 0) == 0, "a semaphore");
	snprintf(text, sizeof text, "%d", id);
	pid_t pid = start_role("give", text);
	CHECK(semop(id, &take, 1) == 0, "it is taken when another program gives it");
	CHECK(exited_with(wait_status(pid), 0) && semctl(id, 0, GETVAL) == 0, "its value");
	CHECK(semctl(id, 1, GETVAL) == 0, "SEM_UNDO of a program that ended");
	semctl(id, 0, IPC_RMID);
}

static int give(const char *id)
{
	struct sembuf ops[] = {{.sem_num = 0, .sem_op = 1}, {.sem_num = 1, .sem_op = 1, .sem_flg = SEM_UNDO}};
	return semop(atoi(id), ops, 2) ? 1 : 0;
}

static void test_queues(void)
{
	struct {
		long type;
		char text[8];
	} message = {3, "three"};
	int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	CHECK(id >= 0 && msgsnd(id, &message, sizeof message.text, 0) == 0, "a message is sent");
	memset(&message, 0, sizeof message);
	CHECK(msgrcv(id, &message, sizeof message.text, 3, 0) == sizeof message.text && !strcmp(message.text, "three"),
	      "and received");
	msgctl(id, IPC_RMID, NULL);

	char room[8192];
	unsigned int priority = 0;
	struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = sizeof room};
	mqd_t queue = mq_open("/nabla", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	CHECK(queue >= 0 && mq_send(queue, "low", 4, 1) == 0 && mq_send(queue, "high", 5, 9) == 0, "a POSIX queue");
	CHECK(mq_receive(queue, room, sizeof room, &priority) == 5 && priority == 9 && !strcmp(room, "high"),
	      "the highest priority comes first");
	CHECK(mq_unlink("/nabla") == 0 && mq_close(queue) == 0, "unlinked");
}

static char secret[10000] = "another process";

/* The child writes the address of its own variable to standard output. */
static int show_address(void)
{
	char *place = secret;
	memset(secret + sizeof secret - 8, 'e', 7);
	if (write(STDOUT_FILENO, &place, sizeof place) != sizeof place)
		return 1;
	while (strcmp(secret, "overwritten"))
		sleep_ms(5);
	return 0;
}

static void test_memory_of_others(void)
{
	static char mine[sizeof secret];
	char *place, *argv[] = {"child", "address", NULL};
	posix_spawn_file_actions_t actions;
	int pipe_ends[2];
	pid_t pid;
	CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0, "a pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
	CHECK(posix_spawn(&pid, SELF, &actions, NULL, argv, environ) == 0 &&
		      read(pipe_ends[0], &place, sizeof place) == sizeof place,
	      "a child that shows an address");
	struct iovec here = {mine, sizeof mine}, there = {place, sizeof secret}, nowhere = {(void *)8, 8};
	CHECK(process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof secret && !strcmp(mine, "another process") &&
		      mine[sizeof mine - 2] == 'e',
	      "process_vm_readv");
	CHECK(process_vm_readv(pid, &here, 1, &nowhere, 1, 0) == -1 && errno == EFAULT, "from nowhere: EFAULT");
	CHECK(process_vm_readv(999999, &here, 1, &there, 1, 0) == -1 && errno == ESRCH, "of nobody: ESRCH");
	here = (struct iovec){"overwritten", 12};
	CHECK(process_vm_writev(pid, &here, 1, &there, 1, 0) == 12, "process_vm_writev");
	CHECK(exited_with(wait_status(pid), 0), "the child has seen it");
	CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0) == 0 && syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1) > 0,
	      "kcmp");
}

static void test_nameless_file(void)
{
	int fd = memfd_create("name", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 65536) == 0, "memfd_create");
	CHECK(pwrite(fd, "text", 4, 5000) == 4, "is written");
	char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(memory != MAP_FAILED && !memcmp(memory + 5000, "text", 4), "and mapped");
	char link[64] = "", path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	CHECK(readlink(path, link, sizeof link - 1) > 0 && strstr(link, "memfd:name"), "its name");
	munmap(memory, 65536);
	close(fd);
}

static void test_process_descriptors(void)
{
	pid_t pid = start_role("sleep", "");
	int fd = syscall(434 /* pidfd_open */, pid, 0);
	CHECK(fd >= 0 && syscall(424 /* pidfd_send_signal */, fd, SIGTERM, NULL, 0) == 0, "a signal through a pidfd");
	CHECK(killed_by(wait_status(pid), SIGTERM), "ends the process");
	close(fd);
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "attach"))
		return attach(argv[2]);
	if (is_role(argc, argv, "give"))
		return give(argv[2]);
	if (is_role(argc, argv, "address"))
		return show_address();
	if (is_role(argc, argv, "sleep"))
		for (;;)
			pause();
	test_segments();
	test_segments_of_relatives();
	test_semaphores();
	test_undo_of_relatives();
	test_queues();
	test_memory_of_others();
	test_nameless_file();
	test_process_descriptors();
	return tap_done();
}
