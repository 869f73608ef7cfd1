// SPDX-License-Identifier: Apache-2.0
// Parses the values of all options but those of the network, see parse_network.c.
#include "parse.h"

#include "diag.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define GUEST_PAGE_SIZE UINT64_C(4096)
#define MEMORY_MIN (24 * MIB)
#define GUEST_HOSTNAME_MAX 64 /* __NEW_UTS_LEN of the guest kernel */
#define GUEST_NAME_MAX 64
#define SECOND_NS UINT64_C(1000000000)
#define SECONDS_MAX UINT64_C(1000000000) /* 31 years */
#define NICE_MAX 19
#define ID_MAX (UINT32_MAX - 1)	 /* setresuid() takes UINT32_MAX as "unchanged" */

bool parse_number(const char *text, uint64_t most, uint64_t *number, const char **end)
{
	uint64_t n = 0;
	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		unsigned digit = (unsigned)(*text - '0');
		if (n > (UINT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	*number = n;
	*end = text;
	return n <= most;
}

void *array_grow(void *list, size_t *count, size_t size)
{
	list = realloc(list, (*count + 1) * size);
	if (!list)
		fail(NULL, "out of memory");
	++*count;
	return list;
}

static uint64_t host_memory(void)
{
	struct sysinfo info;
	if (sysinfo(&info) < 0)
		return UINT64_MAX;
	return (uint64_t)info.totalram * info.mem_unit;
}

#define SIZE_HINT "write a number with K, M or G: 64M, 256M, 2G"

/* Parses a size with an optional unit. A size that is too large for the type becomes INT64_MAX. */
static bool parse_size(const char *text, uint64_t *size)
{
	const char *end;
	uint64_t number = 0, unit = 1;
	/* Check the syntax first: an overlong number is too large, not malformed. */
	size_t digits = strspn(text, "0123456789");
	switch (text[digits]) {
	case 'K':
	case 'k':
		unit = KIB;
		break;
	case 'M':
	case 'm':
		unit = MIB;
		break;
	case 'G':
	case 'g':
		unit = GIB;
		break;
	}
	if (!digits || text[digits + (unit > 1)])
		return false;
	*size = parse_number(text, INT64_MAX / unit, &number, &end) ? number * unit : INT64_MAX;
	return true;
}

PARSE(memory)
{
	uint64_t size, most = host_memory();
	if (!parse_size(value, &size))
		fail(SIZE_HINT, "--memory: '%s' is not a size", value);
	if (size > most)
		fail(NULL, "--memory: %s is more than this host has (%llu MiB)", value,
		     (unsigned long long)(most / MIB));
	if (size < MEMORY_MIN)
		fail(SIZE_HINT, "--memory: %s is too little, the minimum is %llu MiB", value,
		     (unsigned long long)(MEMORY_MIN / MIB));
	o->memory = size / GUEST_PAGE_SIZE * GUEST_PAGE_SIZE;
	o->memory_given = true;
}

void memory_restored(struct options *o, uint64_t size)
{
	if (o->memory_given && o->memory != size)
		fail("leave it out", "--memory: the snapshot has %llu KiB of memory", (unsigned long long)size / KIB);
	if (size > host_memory() || size < MEMORY_MIN || size % GUEST_PAGE_SIZE)
		fail(NULL, "the snapshot has %llu KiB of memory, which no VM on this host can have",
		     (unsigned long long)size / KIB);
	o->memory = size;
}

PARSE(snapshot)
{
	if (!*value)
		fail(NULL, "--snapshot: the path is empty");
	o->snapshot = value;
}

PARSE(restore)
{
	if (!*value)
		fail(NULL, "--restore: the path is empty");
	o->restore = value;
}

static uint64_t parse_limit(const char *option, const char *value)
{
	uint64_t size;
	if (!strcmp(value, "none"))
		return UNLIMITED;
	if (!parse_size(value, &size))
		fail("write a number with K, M or G, or none: 64M, 2G", "--%s: '%s' is not a size", option, value);
	return size;
}

PARSE(max_output)
{
	o->max_output = parse_limit("max-output", value);
}

PARSE(max_cow)
{
	o->max_cow = parse_limit("max-cow", value);
}

/* Removes the suffix from the text if present. */
static bool strip_suffix(char *text, const char *suffix)
{
	size_t length = strlen(text), n = strlen(suffix);
	if (length < n || strcmp(text + length - n, suffix))
		return false;
	text[length - n] = '\0';
	return true;
}

PARSE(disk)
{
	struct disk disk = {NULL, false, false, false};
	char *path = strdup(value);
	if (!path)
		fail(NULL, "out of memory");
	for (;;) {
		bool *flag = strip_suffix(path, ",ro") ? &disk.read_only : strip_suffix(path, ",cow") ? &disk.cow : NULL;
		if (!flag)
			break;
		if (*flag)
			fail(NULL, "--disk: '%s' repeats a flag", value);
		*flag = true;
	}
	if (!*path)
		fail("write PATH, PATH,ro or PATH,cow", "--disk: '%s' has no path", value);
	if (disk.read_only && disk.cow)
		fail("choose one", "--disk: ,ro and ,cow exclude each other");
	if (o->disk_count == DISKS_MAX)
		fail(NULL, "--disk: a VM has at most %d disks, including the image", DISKS_MAX);
	disk.path = path;
	o->disks[o->disk_count++] = disk;
}

PARSE(kernel)
{
	if (!*value)
		fail(NULL, "--kernel: the path is empty");
	o->kernel = value;
}

/* The kernel splits its command line at blanks outside quotes. */
static bool is_plain_word(const char *text)
{
	return *text && !strpbrk(text, " \t\n\v\f\r\"");
}

PARSE(init)
{
	if (*value != '/')
		fail("write an absolute path of the guest", "--init: '%s' does not begin with /", value);
	if (!is_plain_word(value))
		fail(NULL, "--init: '%s' contains blanks or quotes, which the kernel's command line cannot carry", value);
	o->init = value;
}

/* Parameters that nabla-run sets itself: a second one would override the first. */
static bool is_reserved(const char *word, size_t length)
{
	static const char *const names[] = {
		"status", "policy", "snapshot", "restore", "mem", "init", "rdinit", "root", "rootfstype",
		"rootflags", "ro", "rw",
	};
	static const char *const numbered[] = {"ubd", "eth", "stream"};
	size_t name = 0;
	while (name < length && word[name] != '=')
		name++;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i]) == name && !memcmp(word, names[i], name))
			return true;
	for (size_t i = 0; i < sizeof numbered / sizeof *numbered; i++)
		if (!strncmp(word, numbered[i], strlen(numbered[i])))
			return true;
	return false;
}

PARSE(append)
{
	if (strchr(value, '"'))
		fail(NULL, "--append: quotes are not supported");
	for (const char *word = value; *(word += strspn(word, " \t\n\v\f\r"));) {
		int length = (int)strcspn(word, " \t\n\v\f\r");
		/* Words after "--" would reach init as settings. */
		if (length == 2 && !memcmp(word, "--", 2))
			fail("the command follows -- on nabla-run's command line",
			     "--append: '--' is not a kernel parameter");
		if (is_reserved(word, (size_t)length))
			fail("use the corresponding option", "--append: '%.*s' is reserved for nabla-run", length, word);
		word += length;
	}
	o->append = value;
}

PARSE(env)
{
	const char *sign = strchr(value, '=');
	if (!sign || sign == value)
		fail("write NAME=VALUE", "--env: '%s' is not an assignment", value);
	o->env = array_grow(o->env, &o->env_count, sizeof *o->env);
	o->env[o->env_count - 1] = value;
}

PARSE(workdir)
{
	if (*value != '/')
		fail("write an absolute path of the guest", "--workdir: '%s' does not begin with /", value);
	o->workdir = value;
}

#define LETTERS_AND_DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

PARSE(hostname)
{
	size_t length = strlen(value);
	if (!length || length > GUEST_HOSTNAME_MAX || strspn(value, LETTERS_AND_DIGITS "-.") < length)
		fail("use 1 to 64 letters, digits, '-' and '.'", "--hostname: '%s' is not a host name", value);
	o->hostname = value;
}

static bool is_guest_id(const char *text, size_t length)
{
	const char *end;
	uint64_t number;
	if (*text >= '0' && *text <= '9')
		return parse_number(text, ID_MAX, &number, &end) && end == text + length;
	return length && length <= GUEST_NAME_MAX && *text != '-' && strspn(text, LETTERS_AND_DIGITS "-._") >= length;
}

PARSE(user)
{
	size_t user = strcspn(value, ":");
	if (!is_guest_id(value, user) || (value[user] && !is_guest_id(value + user + 1, strlen(value + user + 1))))
		fail("write USER or USER:GROUP, names or numbers", "--user: '%s' is not a user of the guest", value);
	o->user = value;
}

PARSE(service)
{
	size_t good = strspn(value, LETTERS_AND_DIGITS "-._");
	if (!good || value[good] || *value == '.' || good > GUEST_NAME_MAX)
		fail("a service is a file in the image's /etc/nabla/services",
		     "--service: '%s' is not a service name", value);
	o->services = array_grow(o->services, &o->service_count, sizeof *o->services);
	o->services[o->service_count - 1] = value;
}

PARSE(run_as)
{
	uint64_t uid = 0, gid = 0;
	const char *end;
	bool good = parse_number(value, ID_MAX, &uid, &end);
	gid = uid;
	if (good && *end == ':')
		good = parse_number(end + 1, ID_MAX, &gid, &end);
	if (!good || *end)
		fail("write UID or UID:GID, numbers only", "--run-as: '%s' is not a user of the host", value);
	o->run_as = (struct identity){(uid_t)uid, (gid_t)gid};
	o->run_as_given = true;
}

/* Parses a positive time in seconds. */
static uint64_t parse_seconds(const char *option, const char *value)
{
	uint64_t seconds = 0, ns = 0, unit = SECOND_NS;
	const char *end = value;
	bool good = parse_number(value, SECONDS_MAX, &seconds, &end);
	if (good && *end == '.') {
		good = end[1] >= '0' && end[1] <= '9';
		for (end++; *end >= '0' && *end <= '9'; end++)
			ns += (unsigned)(*end - '0') * (unit /= 10); /* below a nanosecond, unit is 0 */
	}
	if (!good || *end || seconds * SECOND_NS + ns == 0)
		fail("write a number up to 1000000000, fractions are allowed: 10, 0.5",
		     "--%s: '%s' is not a time in seconds", option, value);
	return seconds * SECOND_NS + ns;
}

PARSE(timeout)
{
	o->timeout_ns = parse_seconds("timeout", value);
}

PARSE(cpu_time)
{
	o->cpu_time_ns = strcmp(value, "none") ? parse_seconds("cpu-time", value) : UNLIMITED;
}

PARSE(nice)
{
	uint64_t number = 0;
	const char *end = value;
	if (!parse_number(value, NICE_MAX, &number, &end) || *end)
		fail("write a number from 0 (no change) to 19 (lowest priority)",
		     "--nice: '%s' is not a nice value", value);
	o->nice = (int)number;
}

PARSE(stats_fd)
{
	uint64_t number = 0;
	const char *end = value;
	if (!parse_number(value, INT_MAX, &number, &end) || *end)
		fail("write the number of an open descriptor", "--stats-fd: '%s' is not a descriptor", value);
	int flags = fcntl((int)number, F_GETFL);
	if (flags < 0)
		fail(NULL, "--stats-fd: descriptor %d is not open", (int)number);
	if ((flags & O_ACCMODE) == O_RDONLY || flags & O_PATH)
		fail(NULL, "--stats-fd: descriptor %d is not open for writing", (int)number);
	o->stats_fd = (int)number;
}
