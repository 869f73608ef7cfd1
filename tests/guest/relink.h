/* SPDX-License-Identifier: Apache-2.0 */
/* Creates programs that are linked to an address: a static PIE is moved there, as a linker would have placed
 * it. */
#ifndef NABLA_RELINK_H
#define NABLA_RELINK_H

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The byte in the file that is loaded to an address; NULL if none is. */
static inline void *relink_at(char *file, Elf64_Addr address)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
	const Elf64_Phdr *load = (const Elf64_Phdr *)(file + header->e_phoff);
	for (int i = 0; i < header->e_phnum; i++)
		if (load[i].p_type == PT_LOAD && address - load[i].p_vaddr < load[i].p_filesz)
			return file + load[i].p_offset + (address - load[i].p_vaddr);
	return NULL;
}

/* Adds `base` to all addresses in the dynamic section and in relocations. */
static inline void relink_dynamic(char *file, Elf64_Dyn *dynamic, Elf64_Addr base)
{
	Elf64_Addr table = 0, size = 0;
	for (Elf64_Dyn *d = dynamic; d->d_tag; d++) {
		if (d->d_tag == DT_RELA)
			table = d->d_un.d_ptr;
		if (d->d_tag == DT_RELASZ)
			size = d->d_un.d_val;
	}
	for (Elf64_Rela *r = relink_at(file, table); r && size >= sizeof *r; r++, size -= sizeof *r)
		if (ELF64_R_TYPE(r->r_info) == R_X86_64_RELATIVE) {
			r->r_offset += base;
			r->r_addend += base;
		}
	for (Elf64_Dyn *d = dynamic; d->d_tag; d++)
		switch (d->d_tag) {
		case DT_PLTGOT:
		case DT_HASH:
		case DT_GNU_HASH:
		case DT_STRTAB:
		case DT_SYMTAB:
		case DT_RELA:
		case DT_JMPREL:
		case DT_INIT:
		case DT_FINI:
		case DT_INIT_ARRAY:
		case DT_FINI_ARRAY:
			d->d_un.d_ptr += base;
		}
}

/* Writes the static PIE `from` as the program `to` that is linked to `base`. Returns 1 if that succeeded. */
static inline int relink(const char *from, const char *to, Elf64_Addr base)
{
	struct stat status;
	int fd = open(from, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		return 0;
	char *file = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return 0;
	Elf64_Ehdr *header = (Elf64_Ehdr *)file;
	Elf64_Phdr *part = (Elf64_Phdr *)(file + header->e_phoff);
	for (int i = 0; i < header->e_phnum; i++)
		if (part[i].p_type == PT_DYNAMIC)
			relink_dynamic(file, (Elf64_Dyn *)(file + part[i].p_offset), base);
	for (int i = 0; i < header->e_phnum; i++)
		if (part[i].p_type != PT_GNU_STACK) {
			part[i].p_vaddr += base;
			part[i].p_paddr += base;
		}
	header->e_type = ET_EXEC;
	header->e_entry += base;
	unlink(to);
	fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	int good = fd >= 0 && write(fd, file, status.st_size) == status.st_size;
	close(fd);
	munmap(file, status.st_size);
	return good;
}

#endif
