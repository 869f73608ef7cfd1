// SPDX-License-Identifier: Apache-2.0
/*
 * A fuzzer of what nabla-run reads of a snapshot, the first two pages, that is guided by coverage. It is compiled together
 * with all of launcher/ but its main() and its messages, with sanitizers.
 *
 *   headers FOLDER SEED ROUNDS
 *
 * A round writes a damaged file. As the file of --restore and as that of an instant start, it is accepted exactly if it has
 * all that a sound one has; an instant start removes one that is not. Ends with status 0; a finding ends it by a sanitizer
 * or by abort(). Prints how many were kept, and how many were accepted.
 */
#include "coverage.h"
#include "descriptors.h"
#include "diag.h"
#include "fit.h"
#include "instant.h"
#include "parse.h"
#include "snapshot.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CORPUS 4096
#define MEMORY (UINT64_C(64) << 20)
#define MEMORY_LEAST (UINT64_C(24) << 20)
#define OWN 10 /* the descriptors of this program are below */

/* --- instead of diag.c: an error ends a round ------------------------------------------------------------------------ */

static jmp_buf refused;

static void check_message(const char *hint, const char *format, va_list args)
{
	char line[4096];
	if (vsnprintf(line, sizeof line, format, args) <= 0 || (hint && !*hint))
		abort();
}

void fail(const char *hint, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	check_message(hint, format, args);
	va_end(args);
	longjmp(refused, 1);
}

void fail_with(int status, const char *hint, const char *format, ...)
{
	va_list args;
	(void)status;
	va_start(args, format);
	check_message(hint, format, args);
	va_end(args);
	longjmp(refused, 1);
}

void note(const char *format, ...)
{
	(void)format;
}

void diag_as(const char *name)
{
	(void)name;
}

void on_failure(void (*f)(void))
{
	(void)f;
}

void set_raw_line_ends(bool raw)
{
	(void)raw;
}

static void expect(bool condition)
{
	if (!condition)
		abort();
}

/* --- files ----------------------------------------------------------------------------------------------------------- */

/* As in snapshot.c and instant.c, whose own types nobody else has. */
struct header {
	uint64_t magic;
	uint32_t format, flags;
	uint8_t build_id[32];
	uint64_t memory, size, rest[19];
	struct {
		uint64_t size;
		uint32_t kind;
		int32_t fd;
	} disks[DISKS_MAX];
};

#define MAGIC UINT64_C(0x31706e73616c626e)
#define FORMAT 2

struct notes {
	uint64_t magic;
	struct {
		uint64_t size;
		int64_t seconds, nanoseconds;
		uint64_t start;
	} disks[DISKS_MAX];
};

struct seal {
	uint64_t magic, sum;
	struct fit fit;
};

#define SEAL_MAGIC UINT64_C(0x31736e69616c626e)

struct file {
	uint64_t size;
	uint32_t mode;
	time_t changed;
	unsigned char first[SNAPSHOT_PAGE], second[SNAPSHOT_PAGE];
};

static struct file *corpus[CORPUS];
static size_t corpus_size;

static struct options base;
static struct disk_file files[DISKS_MAX];
static struct file restorable, instant; /* sound ones */
static char folder[PATH_MAX], restored_path[PATH_MAX + 16], instant_path[PATH_MAX + CACHE_NAME_MAX + 32];

static time_t time_of(const struct file *f)
{
	return (time_t)(snapshot_hash(f->second, sizeof(struct seal)) & 0x3fffffff);
}

/* Makes the file consistent again, as somebody could who forges one. */
static void repair(struct file *f)
{
	struct seal seal;
	memcpy(&seal, f->second, sizeof seal);
	seal.sum = snapshot_hash(f->first, sizeof f->first);
	memcpy(f->second, &seal, sizeof seal);
	f->changed = time_of(f);
}

static void write_file(const char *path, const struct file *f)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = f->changed}};
	unlink(path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	expect(fd >= 0 && pwrite(fd, f->first, sizeof f->first, 0) == sizeof f->first &&
	       pwrite(fd, f->second, sizeof f->second, sizeof f->first) == sizeof f->second &&
	       !ftruncate(fd, (off_t)f->size) && !fchmod(fd, f->mode) && !futimens(fd, times) && !close(fd));
}

/* Only what is in the file counts: the rest reads as zeros, and what is cut off does not exist. */
static bool is_in(const struct file *f, size_t end)
{
	return f->size >= end;
}

/* --- damage ---------------------------------------------------------------------------------------------------------- */

static uint64_t number(const struct file *f)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 3, 4, 255, 4095, 4096, 8192, MEMORY_LEAST - 4096, MEMORY_LEAST, MEMORY - 1, MEMORY, MEMORY + 4096,
		UINT64_C(1) << 31, UINT64_C(1) << 32, UINT64_C(1) << 40, UINT64_C(1) << 62, UINT64_C(1) << 63, UINT64_MAX - 4095,
		UINT64_MAX, MAGIC, SEAL_MAGIC,
	};
	uint64_t n = draw(8) ? numbers[draw(sizeof numbers / sizeof *numbers)] : f->size;
	return draw(4) ? n : n + draw(3) - 1;
}

/* Most often a field, so that not all else is wrong, too. */
static unsigned char *place(struct file *f, uint32_t width)
{
	const uint32_t fields[] = {
		offsetof(struct header, magic), offsetof(struct header, format), offsetof(struct header, flags),
		offsetof(struct header, memory), offsetof(struct header, size),
		offsetof(struct header, disks) + 16 * draw(DISKS_MAX) + (width < 8 ? 8 + 4 * draw(2) : 0),
	};
	bool second = draw(2);
	uint32_t used = second ? (draw(2) ? sizeof(struct seal) : sizeof(struct notes)) : sizeof(struct header);
	uint32_t room = draw(16) ? used : SNAPSHOT_PAGE;
	if (draw(2))
		return f->first + fields[draw(sizeof fields / sizeof *fields)];
	return (second ? f->second : f->first) + draw((room - width) / width + 1) * width;
}

static void change(struct file *f)
{
	static const uint32_t modes[] = {0400, 0600, 0444, 0602, 0700};
	uint64_t n = number(f);
	uint32_t n32 = (uint32_t)n;
	const struct file *other;
	switch (draw(8)) {
	case 0: memcpy(place(f, 8), &n, 8); break;
	case 1: memcpy(place(f, 4), &n32, 4); break;
	case 2: *place(f, 1) ^= (unsigned char)(1u << draw(8)); break;
	case 3: memset(f->first + 64 * draw(SNAPSHOT_PAGE / 64), draw(2) ? 0xff : 0, 64); break;
	case 4: f->size = n < UINT64_C(1) << 42 ? n : draw(3 * SNAPSHOT_PAGE); break;
	case 5: f->mode = modes[draw(sizeof modes / sizeof *modes)]; break;
	case 6: f->changed += (time_t)draw(3) - 1; break;
	default: /* a page of another one */
		other = corpus_size ? corpus[draw((uint32_t)corpus_size)] : &restorable;
		memcpy(draw(2) ? f->first : f->second, draw(2) ? other->first : other->second, SNAPSHOT_PAGE);
	}
}

/* --- what is accepted ------------------------------------------------------------------------------------------------ */

static bool is_header(const struct file *f, struct header *h)
{
	memcpy(h, f->first, sizeof *h);
	return is_in(f, sizeof *h) && h->magic == MAGIC && h->format == FORMAT && f->size >= h->size && h->size >= h->memory;
}

static bool fits(const struct file *f, const struct options *o)
{
	struct notes notes, sound;
	struct header h;
	if (!is_header(f, &h) || !is_in(f, SNAPSHOT_PAGE + sizeof notes))
		return false;
	memcpy(&notes, f->second, sizeof notes);
	memcpy(&sound, restorable.second, sizeof sound);
	if (h.memory % 4096 || h.memory < MEMORY_LEAST || (o->memory_given && h.memory != o->memory) ||
	    (o->net.kind != NET_NONE && !(h.flags & 2)) || notes.magic != sound.magic)
		return false;
	for (size_t i = 0; i < DISKS_MAX; i++) {
		uint32_t kind = i >= o->disk_count ? 0 : o->disks[i].read_only ? 2 : o->disks[i].cow ? 3 : 1;
		if (h.disks[i].kind != kind || (kind && memcmp(&notes.disks[i], &sound.disks[i], sizeof sound.disks[i])))
			return false;
	}
	return true;
}

static bool restore(const struct options *o)
{
	static struct options now;
	static struct snapshot s;
	struct stat st, other;
	now = *o;
	now.restore = restored_path;
	memset(hits, 0, sizeof hits);
	tracing = true;
	if (setjmp(refused)) {
		tracing = false;
		return false;
	}
	snapshot_restore(&now, &s);
	snapshot_check_disks(&now, files, &s);
	tracing = false;
	expect(s.restored >= FD_HIGH && s.saved < 0 && !fstat(s.restored, &st) && !stat(restored_path, &other));
	expect(st.st_ino == other.st_ino && now.memory <= (uint64_t)st.st_size);
	return true;
}

static bool is_sealed(const struct file *f)
{
	struct header h;
	return !(f->mode & 077) && is_header(f, &h) && is_in(f, 2 * SNAPSHOT_PAGE) && f->changed == time_of(f) &&
	       !memcmp(f->second + sizeof(uint64_t), &(uint64_t){snapshot_hash(f->first, sizeof f->first)}, 8) &&
	       !memcmp(f->second, instant.second, 8) &&
	       !memcmp(f->second + offsetof(struct seal, fit), instant.second + offsetof(struct seal, fit), sizeof(struct fit));
}

static bool start(const struct file *f)
{
	static struct options now;
	static struct vm vm;
	now = base;
	vm = (struct vm){.options = &now, .kernel = {.fd = files[0].fd}, .stats_fd = -1};
	tracing = true;
	if (setjmp(refused))
		abort(); /* nothing of the cache is an error */
	instant_start(&vm, &now, files);
	tracing = false;
	expect(vm.start.restored == !vm.start.why && vm.start.restored == !!now.restore);
	/* what others may write to is not this user's, and an empty one says that the image does not save its boot */
	expect(!access(instant_path, F_OK) == (vm.start.restored || !f->size || f->mode & 077));
	return vm.start.restored;
}

static bool try(const struct file *f, const struct options *o)
{
	write_file(restored_path, f);
	bool accepted = restore(o);
	expect(accepted == fits(f, o));
	write_file(instant_path, f);
	bool started = start(f);
	expect(started == is_sealed(f));
	close_range_of(OWN, ~0u);
	return accepted || started;
}

/* --- a sound file ---------------------------------------------------------------------------------------------------- */

static void prepare(void)
{
	static char *nothing[] = {NULL};
	static struct vm vm;
	struct snapshot s = {.saved = -1, .restored = -1};
	struct seal seal = {.magic = SEAL_MAGIC};
	struct header h = {.magic = MAGIC, .format = FORMAT, .flags = 2, .memory = MEMORY, .size = MEMORY};
	static char image[PATH_MAX + 16];
	char name[CACHE_NAME_MAX];
	const char *why = NULL;
	snprintf(image, sizeof image, "%s/image", folder);
	int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	expect(fd >= 0 && fd < OWN && !ftruncate(fd, 100000));
	base = (struct options){.memory = MEMORY, .init = INIT_DEFAULT, .hostname = HOSTNAME_DEFAULT, .command = nothing,
				.disks = {{.path = image, .cow = true}, {.path = image, .read_only = true}}, .disk_count = 1,
				.stats_fd = -1, .snapshot = restored_path};
	files[0] = files[1] = (struct disk_file){fd, 100000};
	h.disks[0].kind = 3;
	h.disks[1].kind = 2;
	restorable = instant = (struct file){.size = MEMORY, .mode = 0400};
	memcpy(restorable.first, &h, sizeof h);
	base.disk_count = 2;
	snapshot_create(&base, files, &s);
	expect(pread(s.saved, restorable.second, sizeof(struct notes), SNAPSHOT_PAGE) == sizeof(struct notes));
	base.snapshot = NULL;
	base.disk_count = 1;
	vm = (struct vm){.options = &base, .kernel = {.fd = fd}};
	expect(fit_describe(&seal.fit, &vm, files, &why));
	fit_name(&seal.fit, name);
	snprintf(instant_path, sizeof instant_path, "%s/nabla-run/%s", folder, name);
	memcpy(instant.first, &h, sizeof h);
	memcpy(instant.second, &seal, sizeof seal);
	repair(&instant);
	close_range_of(OWN, ~0u);
}

/* Options that a user may add, for which the sound file is right or not. */
static struct options options_of(uint32_t mode)
{
	struct options o = base;
	o.disk_count = mode & 1 ? 1 : 2;
	o.memory_given = mode & 2;
	o.net.kind = mode & 4 ? NET_USER : NET_NONE;
	if (mode == 8)
		o.disks[0].cow = false;
	return o;
}

int main(int argc, char **argv)
{
	static struct file now;
	static struct options o;
	static unsigned long accepted;
	char path[PATH_MAX + 16];
	if (argc != 4)
		return 2;
	snprintf(folder, sizeof folder, "%s", argv[1]);
	snprintf(restored_path, sizeof restored_path, "%s/snapshot", folder);
	snprintf(path, sizeof path, "%s/nabla-run", folder);
	expect(!mkdir(path, 0700) || errno == EEXIST);
	expect(!setenv("XDG_CACHE_HOME", folder, 1));
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	if (setjmp(refused))
		abort();
	prepare();
	o = options_of(0);
	expect(try(&restorable, &o) && try(&instant, &o)); /* otherwise nothing behind it would be tried */
	expect(fits(&restorable, &o) && is_sealed(&instant));
	for (unsigned long rounds = strtoul(argv[3], NULL, 10); rounds; rounds--) {
		now = draw(2) ? restorable : instant;
		if (corpus_size && draw(4))
			now = *corpus[draw((uint32_t)corpus_size)];
		for (uint32_t count = draw(4); count; count--)
			change(&now);
		if (draw(2))
			repair(&now);
		o = options_of(draw(2) ? 0 : draw(9));
		accepted += try(&now, &o);
		if (is_new() && corpus_size < CORPUS) {
			corpus[corpus_size] = malloc(sizeof now);
			*corpus[corpus_size++] = now;
		}
	}
	printf("%zu kept, %lu accepted\n", corpus_size, accepted);
	return 0;
}
