// SPDX-License-Identifier: Apache-2.0
/*
 * A coverage-guided fuzzer of the file server: it keeps conversations that reach new code, and mutates them. It is compiled
 * together with launcher/share_*.c, with sanitizers and -fsanitize-coverage=trace-pc. A conversation consists of a guest's
 * messages after its first two requests.
 *
 *   shares FOLDER SEED ROUNDS    FOLDER: empty, everything in it may be destroyed
 *
 * Ends with status 0; a finding ends it by a sanitizer or by abort(). Prints how many places of the code were reached.
 */
#include "conversations.h"
#include "share_server.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET "secret of the host"

/* --- requests ------------------------------------------------------------------------------------------------------------ */

static void put_name(struct wire *out)
{
	static const char *const names[] = {"a", "b", "dir", "file", "link", "out", "secret", "outside", "..", ".", "", "a/b"};
	const char *name = names[draw(sizeof names / sizeof *names)];
	put_text(out, name, strlen(name));
}

static void put_number(struct wire *out, bool wide)
{
	static const uint64_t odd[] = {0, 1, 7, 512, 4096, 65535, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
	uint64_t value = draw(2) ? draw(512) : odd[draw(sizeof odd / sizeof *odd)];
	if (wide)
		put64(out, value);
	else
		put32(out, (uint32_t)value);
}

/* Appends a request that is well-formed, at least before others change it. f: a fid, n: a name, p: a depth, z: NOFID, i: no name, 1248: numbers, d: data */
static void add_request(struct conversation *c)
{
	static const struct {
		uint8_t type;
		const char *fields;
	} kinds[] = {
		{8, "f"}, {12, "fo"}, {14, "fno44"}, {16, "fnn4"}, {18, "fnm444"}, {22, "f"}, {24, "f8"}, {26, "f4444888888"},
		{26, "fvm448tttt"}, {40, "f8c"}, {50, "f4"}, {52, "f14884n"}, {54, "f1884n"}, {70, "ffn"}, {72, "fn44"},
		{74, "fnfn"}, {76, "fnu"}, {100, "4n"}, {104, "f4nn4"}, {108, "2"}, {110, "ffw"}, {110, "ffw"}, {110, "ffw"},
		{116, "f8c"}, {118, "f8d"}, {120, "f"}, {122, "f"}, {30, "ffn"},
		/* our dialect's */
		{56, "pffn"}, {56, "pffn"}, {56, "pfzi"}, {58, "ff"}, {60, "ffo"}, {62, "fffno44"},
	};
	uint8_t bytes[1024];
	struct wire out = {bytes, WIRE_HEADER, sizeof bytes, false};
	size_t kind = draw(sizeof kinds / sizeof *kinds);
	for (const char *field = kinds[kind].fields; *field; field++) {
		uint16_t count;
		switch (*field) {
		case 'f': put32(&out, draw(8)); break;
		case 'n': put_name(&out); break;
		case 'p': put16(&out, (uint16_t)(draw(4) ? draw(4) : 65535)); break;
		case 'z': put32(&out, UINT32_MAX); break;
		case 'i': put16(&out, 0); break;
		case 'o': put32(&out, (uint32_t)(draw(3) | (draw(4) ? 0 : O_TRUNC) | (draw(4) ? 0 : O_DIRECTORY))); break;
		case 'm': put32(&out, (draw(2) ? S_IFREG : draw(2) ? S_IFIFO : S_IFCHR) | draw(010000)); break;
		case 'u': put32(&out, draw(2) ? 0x200 : 0); break;
		case 'v': put32(&out, draw(0x400)); break;
		case 't': put64(&out, draw(1000000000)); break;
		case 'c': put32(&out, draw(2) ? draw(300) : draw(300000)); break;
		case 'w':
			count = (uint16_t)draw(4);
			put16(&out, count);
			while (count--)
				put_name(&out);
			break;
		case 'd':
			count = (uint16_t)draw(200);
			put32(&out, count);
			while (count--)
				put8(&out, (uint8_t)draw(256));
			break;
		case '1': put8(&out, (uint8_t)draw(256)); break;
		case '2': put16(&out, (uint16_t)draw(65536)); break;
		case '4': put_number(&out, false); break;
		case '8': put_number(&out, true); break;
		}
	}
	if (out.bad || c->size + out.at > CONVERSATION)
		return;
	patch32(&out, 0, out.at);
	bytes[4] = kinds[kind].type;
	bytes[5] = bytes[6] = 0;
	memcpy(c->bytes + c->size, bytes, out.at);
	c->size += out.at;
}

/* --- the share ------------------------------------------------------------------------------------------------------------ */

static void empty(int folder)
{
	int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!unlinkat(folder, entry->d_name, 0))
			continue;
		fchmodat(folder, entry->d_name, 0700, 0);
		int below = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		if (below < 0)
			continue;
		empty(below);
		close(below);
		unlinkat(folder, entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
}

static void write_file(int folder, const char *name, const char *text)
{
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	close(fd);
}

static void fill(int folder)
{
	fchmod(folder, 0700);
	empty(folder);
	write_file(folder, "file", "inside");
	mkdirat(folder, "dir", 0700);
	int dir = openat(folder, "dir", O_PATH | O_DIRECTORY);
	write_file(dir, "file", "inside");
	symlinkat("../../outside", dir, "link");
	close(dir);
	symlinkat("../outside", folder, "link");
	symlinkat("../outside/secret", folder, "out");
}

/* Nothing outside the share may change, and nothing of it may appear in an answer. */
static void check_outside(int outside)
{
	char text[64] = "";
	int fd = openat(outside, "secret", O_RDONLY), count = 0;
	struct stat st;
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0 || strcmp(text, SECRET) || fstat(fd, &st) || st.st_nlink != 1 ||
	    (st.st_mode & 0777) != 0600)
		abort();
	close(fd);
	DIR *dir = fdopendir(openat(outside, ".", O_RDONLY | O_DIRECTORY));
	while (readdir(dir))
		count++;
	closedir(dir);
	if (count != 3)
		abort();
}

static struct share_server server;
static struct stat forbidden[3]; /* files that no fid may refer to */

static void check_fids(void)
{
	for (uint32_t id = 0; id < 8; id++) {
		const struct fid *fid = fid_find(&server.nodes, id);
		for (int i = 0; fid && i < 3; i++)
			if (fid->node->ino == forbidden[i].st_ino && fid->node->dev == forbidden[i].st_dev)
				abort();
	}
}

static void talk(const struct conversation *c)
{
	static const uint8_t hello[] = {27, 0, 0, 0, 100, 255, 255, 0, 0, 4, 0, 14, 0, '9', 'P', '2', '0', '0', '0', '.', 'L', '.',
					'n', 'a', 'b', 'l', 'a'};
	static const uint8_t attach[] = {23, 0, 0, 0, 104, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0};
	static uint8_t answer[SHARE_MSIZE];
	uint8_t message[CONVERSATION];
	uint32_t got;
	memcpy(message, hello, sizeof hello);
	if (!share_serve(&server, message, sizeof hello, answer, &got) || got != sizeof hello || !server.dialect)
		abort();
	memcpy(message, attach, sizeof attach);
	if (!share_serve(&server, message, sizeof attach, answer, &got))
		abort();
	memset(hits, 0, sizeof hits);
	tracing = true;
	for (uint32_t at = 0; c->size - at >= WIRE_HEADER;) {
		uint32_t size = share_message_size(&server, c->bytes + at);
		if (!size || size > c->size - at)
			break;
		/* an exact allocation, so that the sanitizer detects each access beyond it */
		uint8_t *copy = malloc(size);
		memcpy(copy, c->bytes + at, size);
		bool good = share_serve(&server, copy, size, answer, &got);
		free(copy);
		if (got > SHARE_MSIZE || (got && got < WIRE_HEADER) || memmem(answer, got, SECRET, strlen(SECRET)))
			abort();
		if (!good)
			break;
		check_fids();
		at += size;
	}
	tracing = false;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int top = open(argv[1], O_PATH | O_DIRECTORY);
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	mkdirat(top, "share", 0700);
	mkdirat(top, "outside", 0700);
	int outside = openat(top, "outside", O_PATH | O_DIRECTORY);
	int share = openat(top, "share", O_RDONLY | O_DIRECTORY);
	write_file(outside, "secret", SECRET);
	if (fstat(top, &forbidden[0]) || fstat(outside, &forbidden[1]) || fstatat(outside, "secret", &forbidden[2], 0))
		return 2;
	int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY);
	umask(0);
	/* 64: so few that directories constantly lose their descriptors */
	if (!nodes_start(&server.nodes, openat(top, "share", O_PATH | O_DIRECTORY), proc, 64))
		return 2;
	static struct conversation c;
	for (long round = strtol(argv[3], NULL, 10); round > 0; round--) {
		fill(share);
		server.read_only = !draw(8);
		invent(&c, add_request, 6);
		talk(&c);
		keep_if_new(&c);
		if (round % 64 == 1)
			check_outside(outside);
	}
	fid_remove_all(&server.nodes);
	if (server.nodes.count != 1 || server.nodes.opened)
		abort();
	printf("%zu ways, %zu conversations kept\n", ways(), corpus_size);
	return 0;
}
