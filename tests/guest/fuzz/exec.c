// SPDX-License-Identifier: Apache-2.0
// Damaged ELF files: writes a small program, and an interpreter for it, with random changes in their headers, and
// executes it. The code of both is one instruction that faults, so any error is the loader's.
// Arguments: seed, rounds, [folder].
#define _GNU_SOURCE
#include "../util.h"
#include "fuzz.h"

#include <elf.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HLT 0xf4
#define NOT_EXECUTED 77
#define HEADERS 6

struct file {
	Elf64_Ehdr file;
	Elf64_Phdr headers[HEADERS];
	char interpreter[256];
	Elf64_Dyn dynamic[4];
	char code[16384];
};

static struct file bad;

/* 0, or the address to which a program is linked */
static word address(void)
{
	switch (fuzz_below(6)) {
	case 0:
		return 0x400000;
	case 1:
		return 0x200000 + 4096 * fuzz_below(0x5fc00);
	case 2:
		return fuzz_any() & -4096UL;
	default:
		return 0;
	}
}

/* The layout of a linker: headers and code, data with room behind it, dynamic section, stack. */
static void make_good(const char *interpreter)
{
	const word base = address();
	const size_t data = offsetof(struct file, code) + 8192, size = sizeof bad;
	bad = (struct file){
		.file = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_type = base ? ET_EXEC : ET_DYN,
			 .e_machine = EM_X86_64,
			 .e_version = EV_CURRENT,
			 .e_entry = offsetof(struct file, code),
			 .e_phoff = offsetof(struct file, headers),
			 .e_ehsize = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = HEADERS},
		.headers = {{PT_PHDR, PF_R, offsetof(struct file, headers), offsetof(struct file, headers), 0,
			     sizeof bad.headers, sizeof bad.headers, 8},
			    {PT_LOAD, PF_R | PF_X, 0, 0, 0, data, data, 4096},
			    {PT_LOAD, PF_R | PF_W, data, data + 4096, 0, size - data, size - data + 20000, 4096},
			    {PT_DYNAMIC, PF_R, offsetof(struct file, dynamic), offsetof(struct file, dynamic), 0,
			     sizeof bad.dynamic, sizeof bad.dynamic, 8},
			    {PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16},
			    {interpreter ? PT_INTERP : PT_NOTE, PF_R, offsetof(struct file, interpreter),
			     offsetof(struct file, interpreter), 0, interpreter ? strlen(interpreter) + 1 : 0, 0, 1}},
	};
	bad.file.e_entry += base;
	for (int i = 0; i < HEADERS; i++)
		if (bad.headers[i].p_type != PT_GNU_STACK)
			bad.headers[i].p_vaddr += base;
	if (interpreter)
		strcpy(bad.interpreter, interpreter);
	memset(bad.code, HLT, sizeof bad.code);
}

static void change_header(Elf64_Phdr *header)
{
	word *fields = (word *)header, field = 1 + fuzz_below(6);
	if (fuzz_one_in(8))
		header->p_type = fuzz_one_in(4) ? fuzz_any() : fuzz_one_in(2) ? PT_LOAD : fuzz_below(8);
	else if (fuzz_one_in(2))
		fields[field] = fuzz_any();
	else /* a little too small, too large, or beside */
		fields[field] += (fuzz_below(64) - 32) * (fuzz_one_in(2) ? 1 : 4096);
}

/* Returns the number of bytes of the file to write. */
static size_t damage(void)
{
	for (word n = fuzz_below(4); n; n--)
		switch (fuzz_below(6)) {
		case 0: /* behind the magic number */
			((char *)&bad.file)[4 + fuzz_below(sizeof bad.file - 4)] = fuzz_any();
			break;
		case 1:
			((char *)bad.headers)[fuzz_below(sizeof bad.headers)] = fuzz_any();
			break;
		case 2:
			bad.file.e_phnum = fuzz_any();
			break;
		default:
			change_header(&fuzz_pick(bad.headers));
		}
	return fuzz_one_in(20) ? fuzz_below(sizeof bad) : sizeof bad;
}

static int put(const char *path, size_t length)
{
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	int whole = fd >= 0 && write(fd, &bad, length) == (ssize_t)length;
	close(fd);
	return whole;
}

/* Returns its exit status, NOT_EXECUTED, or 128 and a signal. */
static int run(const char *path)
{
	static char filler[60000];
	char *child[] = {(char *)path, NULL}, *environment[] = {filler, NULL};
	int status;
	memset(filler, 'x', fuzz_one_in(4) ? sizeof filler - 1 : 0);
	pid_t pid = vfork();
	if (pid == 0) {
		alarm(1);
		execve(path, child, environment);
		_exit(NOT_EXECUTED);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		exit(1);
	filler[0] = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	word seed = argc > 1 ? strtoul(argv[1], NULL, 0) : 1, rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 1000;
	const char *folder = argc > 3 ? argv[3] : "/tmp";
	word refused = 0, other = 0;
	char program[200], interpreter[200];
	snprintf(program, sizeof program, "%s/program-%lu", folder, seed);
	snprintf(interpreter, sizeof interpreter, "%s/interpreter-%lu", folder, seed);
	for (word round = 0; round < rounds; round++) {
		fuzz_seed(seed + round);
		int interpreted = fuzz_one_in(3);
		if (interpreted) {
			make_good(NULL);
			if (!put(interpreter, damage()))
				return 1;
		}
		make_good(interpreted ? interpreter : NULL);
		if (!put(program, damage()))
			return 1;
		int end = run(program);
		refused += end == NOT_EXECUTED;
		other += end != NOT_EXECUTED && end != 128 + SIGSEGV;
	}
	unlink(program);
	unlink(interpreter);
	printf("exec: %lu files, %lu refused, %lu ended other than by SIGSEGV\n", rounds, refused, other);
	return 0;
}
