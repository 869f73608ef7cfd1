// SPDX-License-Identifier: Apache-2.0
/*
 * A fuzzer of what unpacks the archives of nabla cp -r, guided by coverage. It is compiled together with launcher/client_tar_read.c,
 * with sanitizers and -fsanitize-coverage=trace-pc. A conversation is an archive that a guest may send.
 *
 *   trees FOLDER SEED ROUNDS    FOLDER: empty, everything in it may be destroyed
 *
 * Archives are unpacked in FOLDER/in. What is beside it must stay as it is. Ends with status 0; a finding ends it by a sanitizer or by
 * abort(). Prints how many places of the code were reached, and how many archives were unpacked to their ends.
 */
#include "client_tar.h"
#include "conversations.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET "secret of the host"

static int folder;

/* As in client_tar_write.c. */
unsigned tar_sum(const struct tar_header *header)
{
	const uint8_t *bytes = (const void *)header;
	size_t from = offsetof(struct tar_header, sum);
	unsigned sum = sizeof header->sum * ' ';
	for (size_t i = 0; i < sizeof *header; i++)
		sum += i < from || i >= from + sizeof header->sum ? bytes[i] : 0;
	return sum;
}

static const char *draw_name(void)
{
	static const char *const names[] = {"a", "b", "a/b", "./a", "a/../b", "..", ".", "", "/etc/x", "../beside", "l", "l/x", "a//b/", "l/../x",
					    "b/a/c", "../in/a"};
	return names[draw(sizeof names / sizeof *names)];
}

static void add_block(struct conversation *c, const void *block)
{
	if (c->size + TAR_BLOCK > CONVERSATION)
		return;
	memcpy(c->bytes + c->size, block, TAR_BLOCK);
	c->size += TAR_BLOCK;
}

static void add_entry(struct conversation *c)
{
	static const char types[] = "000112255LKxg3467S";
	static const uint8_t zeros[TAR_BLOCK];
	struct tar_header h = {.type = types[draw(sizeof types)]};
	uint32_t size = draw(3) ? draw(20) : draw(2) ? 0 : draw(2000);
	snprintf(h.name, sizeof h.name, "%s", draw_name());
	snprintf(h.target, sizeof h.target, "%s", draw_name());
	snprintf(h.mode, sizeof h.mode, "%o", draw(010000));
	snprintf(h.size, sizeof h.size, "%o", size);
	if (!draw(8))
		memset(h.size, 0xff, draw(sizeof h.size));
	if (!draw(3)) {
		memcpy(h.magic, "ustar", 6);
		snprintf(h.prefix, sizeof h.prefix, "%s", draw_name());
	}
	snprintf(h.sum, sizeof h.sum, "%06o", tar_sum(&h));
	add_block(c, &h);
	if (h.type == 'L' || h.type == 'K' || draw(2)) {
		uint8_t data[TAR_BLOCK] = {0};
		memset(data, 'n', draw(TAR_BLOCK));
		snprintf((char *)data + draw(8), 16, "%s", draw_name());
		add_block(c, data);
	}
	if (!draw(4)) {
		add_block(c, zeros);
		add_block(c, zeros);
	}
}

/* Puts right the sums that damage has made wrong: else nothing behind them is tried. */
static void correct(struct conversation *c)
{
	for (uint32_t at = 0; at + TAR_BLOCK <= c->size; at += TAR_BLOCK) {
		struct tar_header h;
		memcpy(&h, c->bytes + at, sizeof h);
		if (!draw(2) || !h.sum[0])
			continue;
		snprintf(h.sum, sizeof h.sum, "%06o", tar_sum(&h));
		memcpy(c->bytes + at, &h, sizeof h);
	}
}

/* Removes what is in a directory, which it closes. */
static void empty(int directory)
{
	DIR *stream = fdopendir(directory);
	const struct dirent *entry;
	if (!stream)
		abort();
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!unlinkat(directory, entry->d_name, 0))
			continue;
		empty(openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
		if (unlinkat(directory, entry->d_name, AT_REMOVEDIR) < 0)
			abort();
	}
	closedir(stream);
}

/* The folder has two entries, and the one beside what is unpacked has one name and its content. */
static void check(void)
{
	char content[sizeof SECRET + 1] = "";
	struct stat st;
	unsigned count = 0;
	int fd = openat(folder, "beside", O_RDONLY | O_NOFOLLOW);
	DIR *stream = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY));
	while (stream && readdir(stream))
		count++;
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_nlink != 1 || read(fd, content, sizeof content) != sizeof SECRET - 1 ||
	    strcmp(content, SECRET) || count != 4)
		abort();
	closedir(stream);
	close(fd);
}

int main(int argc, char **argv)
{
	static struct conversation c;
	size_t whole = 0;
	if (argc != 4)
		return 2;
	folder = open(argv[1], O_RDONLY | O_DIRECTORY);
	int beside = openat(folder, "beside", O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (beside < 0 || write(beside, SECRET, sizeof SECRET - 1) < 0 || close(beside) < 0)
		return 2;
	state = strtoull(argv[2], NULL, 10);
	for (unsigned long round = strtoul(argv[3], NULL, 10); round; round--) {
		int in = memfd_create("archive", 0);
		invent(&c, add_entry, 6);
		correct(&c);
		if (mkdirat(folder, "in", 0700) < 0 || write(in, c.bytes, c.size) != (ssize_t)c.size || lseek(in, 0, SEEK_SET) < 0)
			abort();
		int directory = openat(folder, "in", O_RDONLY | O_DIRECTORY);
		memset(hits, 0, sizeof hits);
		tracing = true;
		whole += !tar_read(in, directory);
		tracing = false;
		close(in);
		check();
		empty(directory);
		if (unlinkat(folder, "in", AT_REMOVEDIR) < 0)
			abort();
		keep_if_new(&c);
	}
	printf("%zu places, %zu conversations, %zu archives to their ends\n", ways(), corpus_size, whole);
	return whole ? 0 : 1;
}
