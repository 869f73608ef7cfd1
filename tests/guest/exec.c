// SPDX-License-Identifier: Apache-2.0
// exec of files that can and cannot be run: missing, directory, script, text, truncated, non-PIE, not executable.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <elf.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static char directory[] = "/tmp/nabla-exec-XXXXXX";
static char path[128];

static const char *in_directory(const char *name)
{
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

static const char *make_file(const char *name, const void *data, size_t size, int mode)
{
	const char *file = in_directory(name);
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size || fchmod(fd, mode))
		tap_note("cannot write %s", file);
	close(fd);
	return file;
}

/* The errno of an execv in a vfork child, or -status when it ran. */
static int exec_result(const char *file, char *const *argv)
{
	static volatile int error;
	error = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		execve(file, argv, environ);
		error = errno;
		_exit(100);
	}
	int status = wait_status(pid);
	return error ? error : -WEXITSTATUS(status);
}

static char *const plain[] = {"child", "exit", "7", NULL};

static void test_files(void)
{
	CHECK(exec_result("/no/such/file", plain) == ENOENT, "a missing file: ENOENT");
	CHECK(exec_result("/", plain) == EACCES, "a directory: EACCES");
	CHECK(exec_result("/dev/null", plain) == EACCES, "a device: EACCES");
	CHECK(exec_result(SELF, plain) == -7, "this program: runs");
	CHECK(exec_result(make_file("plain", "x", 1, 0644), plain) == EACCES, "without an x bit: EACCES");
	CHECK(exec_result(make_file("empty", "", 0, 0755), plain) == ENOEXEC, "an empty file: ENOEXEC");
	CHECK(exec_result(make_file("text", "exit 5\n", 7, 0755), plain) == ENOEXEC, "a text without #!: ENOEXEC");
	CHECK(exec_result("/etc/hostname/x", plain) == ENOTDIR || access("/etc/hostname", F_OK), "below a file: ENOTDIR");

	static const char script[] = "#!/bin/sh\ntest \"$1\" = exit && exit 44\n";
	CHECK(exec_result(make_file("script", script, sizeof script - 1, 0755), plain) == -44, "a shell script runs");
	static const char optioned[] = "#!/bin/sh -e\nfalse\nexit 45\n";
	CHECK(exec_result(make_file("option", optioned, sizeof optioned - 1, 0755), plain) == -1,
	      "a script with an option for its interpreter");
	static const char lost[] = "#!/no/such/interpreter\n";
	CHECK(exec_result(make_file("lost", lost, sizeof lost - 1, 0755), plain) == ENOENT,
	      "a script with a missing interpreter: ENOENT");
	char nested[160];
	make_file("script", script, sizeof script - 1, 0755);
	int length = snprintf(nested, sizeof nested, "#!%s/script exit\n", directory);
	CHECK(exec_result(make_file("nested", nested, length, 0755), plain) == -44, "a script run by a script");
}

/* A minimal ELF file that only has headers: exec must refuse all wrong values in it. */
struct tiny {
	Elf64_Ehdr header;
	Elf64_Phdr load;
	unsigned char code[32];
};

static struct tiny tiny_elf(int type)
{
	struct tiny t = {
		.header = {
			.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			.e_type = type, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
			.e_phoff = sizeof(Elf64_Ehdr), .e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
		},
		.load = {
			.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = 0, .p_align = 0x1000,
			.p_filesz = sizeof(struct tiny), .p_memsz = sizeof(struct tiny),
		},
		// mov $60, %eax; mov $33, %edi; syscall
		.code = {0xb8, 60, 0, 0, 0, 0xbf, 33, 0, 0, 0, 0x0f, 0x05},
	};
	if (type == ET_EXEC)
		t.load.p_vaddr = t.load.p_paddr = 0x400000;
	t.header.e_entry = t.load.p_vaddr + offsetof(struct tiny, code);
	return t;
}

static int run_elf(const struct tiny *elf, size_t size)
{
	return exec_result(make_file("elf", elf, size, 0755), plain);
}

static void test_elf(void)
{
	struct tiny good = tiny_elf(ET_DYN), t = good;
	CHECK(run_elf(&good, sizeof good) == -33, "a hand-made PIE without libc or sections runs");
	t = tiny_elf(ET_EXEC);
	int result = run_elf(&t, sizeof t);
	CHECK(result == -33, "a non-PIE program runs");

	CHECK(run_elf(&good, 20) > 0, "cut inside the ELF header: refused");
	result = run_elf(&good, sizeof good.header + 10);
	CHECK(result == ENOEXEC || result == EIO, "cut inside the program headers: refused");
	t = good;
	t.header.e_machine = EM_AARCH64;
	CHECK(run_elf(&t, sizeof t) == ENOEXEC, "for another machine: ENOEXEC");
	t = good;
	t.header.e_phnum = 65535;
	CHECK(run_elf(&t, sizeof t) > 0, "with too many program headers: refused");
	t = good;
	t.header.e_phoff = 0x7fffffffffffff00;
	CHECK(run_elf(&t, sizeof t) > 0, "program headers far outside the file: refused");
}

/* Files whose errors only show while loading: an error or the end of that process, and nothing worse. */
static void test_lies(void)
{
	struct tiny t = tiny_elf(ET_DYN);
	t.load.p_memsz = 1UL << 46;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.load.p_vaddr = 0xfffffffffffff000;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.load.p_filesz = 1 << 20;
	t.load.p_memsz = 1 << 20;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.header.e_entry = 0x123456789000;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.load.p_type = PT_INTERP;
	run_elf(&t, sizeof t);
	t.load.p_filesz = 1UL << 40;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.load.p_filesz = 64;
	t.load.p_memsz = 32;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.header.e_ident[EI_CLASS] = ELFCLASS32;
	t.header.e_machine = EM_386;
	run_elf(&t, sizeof t);
	t = tiny_elf(ET_DYN);
	t.header.e_phnum = 0;
	run_elf(&t, sizeof t);
	CHECK(exec_result(SELF, plain) == -7, "after nine lying ELF files programs still start");
	CHECK(exec_result((char *)8, plain) == EFAULT, "a bad path pointer: EFAULT");
	char *const *volatile wild = (char *const *)8;
	CHECK(exec_result(SELF, wild) == EFAULT, "a bad argument pointer: EFAULT");
}

int main(int argc, char **argv)
{
	if (is_role(argc, argv, "exit"))
		return atoi(argv[2]);
	if (!mkdtemp(directory))
		return 2;
	test_files();
	test_elf();
	test_lies();
	static const char *const made[] = {"plain", "empty", "text", "script", "option", "lost", "nested", "elf"};
	for (size_t i = 0; i < ARRAY_SIZE(made); i++)
		unlink(in_directory(made[i]));
	rmdir(directory);
	return tap_done();
}
