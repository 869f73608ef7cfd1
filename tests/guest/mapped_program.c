// SPDX-License-Identifier: Apache-2.0
// A program of more than 8 MB, which is read on demand: a copy of this one with additional memory behind its data.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"
#include "protect.h"

#include <elf.h>
#include <sys/syscall.h>

enum { TABLE = 512 * KB, MORE = 32 * MB };

static const char constant[TABLE] = {[0 ... TABLE - 1] = 0x5a};
static char variable[TABLE] = {[0 ... TABLE - 1] = 0x5b};
static char zero[TABLE];
static const char *const pointers[] = {constant, constant + TABLE - 1}; // which the dynamic linker relocates

static const char *name = "/root/mapped-program";

/* A copy of this program, whose last segment is larger by MORE. */
static int make_program(void)
{
	static char text[4 * MB];
	int in = open(SELF, O_RDONLY | O_CLOEXEC), out = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t size = read(in, text, sizeof text);
	Elf64_Ehdr *header = (void *)text;
	Elf64_Phdr *last = NULL, *segment = (void *)(text + header->e_phoff);
	for (int i = 0; i < header->e_phnum; i++)
		if (segment[i].p_type == PT_LOAD)
			last = &segment[i];
	if (!last || size <= 0)
		return 0;
	last->p_memsz += MORE;
	int good = write(out, text, (size_t)size) == size;
	close(in);
	return !close(out) && good;
}

static long resident(void)
{
	long pages[2] = {-1, -1};
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%ld %ld", &pages[0], &pages[1]) != 2)
		pages[1] = -1;
	if (f)
		fclose(f);
	return pages[1] * PAGE;
}

/* The part of /proc/self/maps with this address: its four letters. */
static int mapped_as(const void *at, const char *rights)
{
	char line[512];
	int found = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	while (f && fgets(line, sizeof line, f)) {
		unsigned long from, to;
		char seen[5];
		if (sscanf(line, "%lx-%lx %4s", &from, &to, seen) == 3 && (unsigned long)at >= from && (unsigned long)at < to)
			found = !strcmp(seen, rights);
	}
	if (f)
		fclose(f);
	return found;
}

static int run_program(void)
{
	long before = resident();
	if (no_mmu())
		CHECK(before > 0 && before < 8 * MB, "little of it is memory");
	CHECK(all_bytes(constant, TABLE, 0x5a) && all_bytes(variable, TABLE, 0x5b) && all_bytes(zero, TABLE, 0),
	      "its constants, variables and zeros are right");
	CHECK(pointers[0] == constant && pointers[1] == constant + TABLE - 1, "so are its pointers");
	CHECK(mapped_as((void *)run_program, "r-xp") && mapped_as(variable + TABLE / 2, "rw-p"), "it shows in /proc/self/maps");
	CHECK(open(name, O_WRONLY | O_CLOEXEC) == -1 && errno == ETXTBSY, "nobody can write to its file");
	memset(variable, 1, TABLE / 2);
	pid_t child = fork();
	if (!child) {
		int good = all_bytes(variable, TABLE / 2, 1) && all_bytes(variable + TABLE / 2, TABLE / 2, 0x5b) &&
			   all_bytes(constant, TABLE, 0x5a);
		memset(variable, 2, TABLE);
		memset(zero, 3, TABLE);
		for (int i = 0; i < 1000; i++)
			good = good && syscall(SYS_getppid) == getppid();
		_exit(!good);
	}
	CHECK(exited_with(wait_status(child), 0), "a child has its own variables");
	CHECK(all_bytes(variable, TABLE / 2, 1) && all_bytes(variable + TABLE / 2, TABLE / 2, 0x5b) && all_bytes(zero, TABLE, 0),
	      "and its parent");
	unlink(name);
	CHECK(exited_with(run_role("child", NULL), 0), "it starts itself, without a name");
	return tap_done();
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "child"))
		return !all_bytes(constant, TABLE, 0x5a) || !all_bytes(variable, TABLE, 0x5b) || !all_bytes(zero, TABLE, 0);
	if (is_role(argc, argv, "large"))
		return run_program();
	if (argc > 1)
		name = argv[1];
	if (!make_program()) {
		CHECK(0, "a large program");
		return tap_done();
	}
	execl(name, name, "large", NULL);
	CHECK(0, "it starts");
	return tap_done();
}
