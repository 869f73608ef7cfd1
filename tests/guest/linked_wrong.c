// SPDX-License-Identifier: Apache-2.0
// Programs that are linked to unavailable addresses, or in a way that cannot be loaded: ENOMEM, or the end of that
// process, and nothing worse.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <elf.h>
#include <sys/resource.h>

enum { USUAL = 0x400000 };

static char path[] = "/tmp/linked-wrong-XXXXXX";

struct tiny {
	Elf64_Ehdr header;
	Elf64_Phdr load[2];
	unsigned char code[32];
};

/* Ends with status 33. */
static struct tiny tiny_program(Elf64_Addr base)
{
	return (struct tiny){
		.header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			   .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
			   .e_entry = base + __builtin_offsetof(struct tiny, code), .e_phoff = sizeof(Elf64_Ehdr),
			   .e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2},
		.load = {{PT_LOAD, PF_R | PF_X, 0, base, base, sizeof(struct tiny), sizeof(struct tiny), 0x1000},
			 {PT_LOAD, PF_R | PF_W, 0, base + 0x10000, 0, 64, 0x8000, 0x1000}},
		.code = {0xb8, 60, 0, 0, 0, 0xbf, 33, 0, 0, 0, 0x0f, 0x05},
	};
}

/* The error of execve, or minus the exit status, or -1000 minus the signal. */
static int run_tiny(struct tiny t)
{
	static volatile int error;
	char *argv[] = {path, NULL};
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (write(fd, &t, sizeof t) != sizeof t)
		return 0;
	close(fd);
	error = 0;
	pid_t pid = vfork();
	if (!pid) {
		execve(path, argv, environ);
		error = errno;
		_exit(0);
	}
	int status = wait_status(pid);
	return error ? error : WIFEXITED(status) ? -WEXITSTATUS(status) : -1000 - WTERMSIG(status);
}

static void test_impossible(void)
{
	char *ram = malloc(1 << 20);
	struct tiny t = tiny_program(USUAL);
	CHECK(run_tiny(t) == -33, "a hand-made program runs");
	CHECK(run_tiny(tiny_program(0x5fde8000)) == -33, "at the last addresses that there are");
	if (no_mmu()) {
		const Elf64_Addr wrong[] = {0, 0x1000, 0xff000, 0x5fde9000, 0x5fe00000, 0x60000000, (Elf64_Addr)ram & ~4095UL,
					    1UL << 36, 1UL << 40, 1UL << 46, -0x20000UL};
		int refused = 1;
		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
			if (run_tiny(tiny_program(wrong[i])) != ENOMEM) {
				tap_note("%#lx is not refused", (unsigned long)wrong[i]);
				refused = 0;
			}
		CHECK(refused, "ENOMEM for addresses of the kernel, of RAM, of the window, below 1 MB and beyond all");
	}
	t.load[1].p_vaddr = -4096UL;
	t.load[1].p_memsz = 8192;
	CHECK(run_tiny(t) > 0 || !no_mmu(), "one that wraps is refused");
	t = tiny_program(USUAL);
	t.load[1].p_vaddr = USUAL;
	run_tiny(t);
	t.load[1].p_vaddr = USUAL + 4;
	t.load[1].p_memsz = 1 << 28;
	run_tiny(t);
	CHECK(run_tiny(tiny_program(USUAL)) == -33, "parts that overlap harm nobody");
	t = tiny_program(USUAL);
	t.load[1].p_memsz = 0x50000000;
	int result = run_tiny(t);
	CHECK(result == -33 || result == ENOMEM || !no_mmu(), "1.3 GB without contents cost nothing");
	t.load[1].p_memsz = 0x5fc00000;
	CHECK(run_tiny(t) == ENOMEM || !no_mmu(), "and do not reach the kernel");
	struct rlimit old, limit;
	getrlimit(RLIMIT_AS, &old);
	limit = (struct rlimit){256 << 20, old.rlim_max};
	t.load[1].p_memsz = 0x20000000;
	setrlimit(RLIMIT_AS, &limit);
	CHECK(run_tiny(t) != -33, "the limit on addresses holds");
	setrlimit(RLIMIT_AS, &old);
	CHECK(run_tiny(tiny_program(USUAL)) == -33, "and the next one runs");
	free(ram);
}

int main(void)
{
	int fd = mkstemp(path);
	if (fd < 0)
		return 2;
	close(fd);
	test_impossible();
	unlink(path);
	return tap_done();
}
