// SPDX-License-Identifier: Apache-2.0
// The command line. A new option is one row in the table at the end of this file and one function that takes its value.
#include "options.h"

#include "diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#ifndef NABLA_VERSION
#define NABLA_VERSION "unknown"
#endif

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define PAGE_SIZE UINT64_C(4096)
#define MEMORY_DEFAULT (256 * MIB)
#define MEMORY_MIN (16 * MIB)
#define HOSTNAME_MAX 64 /* __NEW_UTS_LEN of the guest kernel */

#define SEE_HELP "see nabla-run --help"

struct row {
	const char *name;
	const char *value; /* what the value is called in the help text; NULL: a switch */
	const char *help;
	void (*take)(struct options *, const char *value);
};

static const struct row table[];

static uint64_t host_memory(void)
{
	struct sysinfo info;
	if (sysinfo(&info) < 0)
		return UINT64_MAX;
	return (uint64_t)info.totalram * info.mem_unit;
}

static void take_memory(struct options *o, const char *value)
{
	const char *hint = "a number and K, M or G: 64M, 256M, 2G";
	char *end;
	uint64_t unit = 1;
	if (*value < '0' || *value > '9') /* strtoull would also take blanks and signs */
		fail(hint, "--memory: '%s' is not a size", value);
	unsigned long long number = strtoull(value, &end, 10);
	if (*end == 'K' || *end == 'k')
		unit = KIB;
	else if (*end == 'M' || *end == 'm')
		unit = MIB;
	else if (*end == 'G' || *end == 'g')
		unit = GIB;
	if (*end && (unit == 1 || end[1]))
		fail(hint, "--memory: '%s' is not a size", value);
	uint64_t most = host_memory();
	if (number > UINT64_MAX / unit || number * unit > most)
		fail(NULL, "--memory: %s is more than this host has (%llu MiB)", value,
		     (unsigned long long)(most / MIB));
	if (number * unit < MEMORY_MIN)
		fail(hint, "--memory: %s is too little, the least is %llu MiB", value,
		     (unsigned long long)(MEMORY_MIN / MIB));
	o->memory = number * unit / PAGE_SIZE * PAGE_SIZE;
}

static void take_read_only(struct options *o, const char *value)
{
	(void)value;
	o->read_only = true;
}

static void take_ephemeral(struct options *o, const char *value)
{
	(void)value;
	o->ephemeral = true;
}

static void take_env(struct options *o, const char *value)
{
	const char *sign = strchr(value, '=');
	if (!sign || sign == value)
		fail("write NAME=VALUE", "--env: '%s' is not an assignment", value);
	o->env = realloc(o->env, (o->env_count + 1) * sizeof *o->env);
	if (!o->env)
		fail(NULL, "out of memory");
	o->env[o->env_count++] = value;
}

static void take_workdir(struct options *o, const char *value)
{
	if (*value != '/')
		fail("a directory of the guest, from its root", "--workdir: '%s' does not begin with /", value);
	o->workdir = value;
}

static void take_hostname(struct options *o, const char *value)
{
	size_t length = strlen(value);
	size_t good = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");
	if (!length || good < length || length > HOSTNAME_MAX)
		fail("1 to 64 letters, digits, '-' and '.'", "--hostname: '%s' is not a host name", value);
	o->hostname = value;
}

static void take_kernel(struct options *o, const char *value)
{
	o->kernel = value;
}

static void take_append(struct options *o, const char *value)
{
	o->append = value;
}

static void take_verbose(struct options *o, const char *value)
{
	(void)value;
	o->verbose = true;
}

static void take_dry_run(struct options *o, const char *value)
{
	(void)value;
	o->dry_run = true;
}

static _Noreturn void take_version(struct options *o, const char *value)
{
	(void)o, (void)value;
	puts("nabla-run " NABLA_VERSION);
	exit(0);
}

static _Noreturn void take_help(struct options *o, const char *value)
{
	(void)o, (void)value;
	puts("usage: nabla-run [OPTION…] IMAGE [-- COMMAND [ARG…]]\n"
	     "\n"
	     "Starts a virtual machine in one host process with IMAGE, an ext2, ext3 or ext4 file system, as its root,\n"
	     "and runs COMMAND in it: by default an interactive shell. The command's exit status becomes that of\n"
	     "nabla-run; 128+N after signal N; 125 when nabla-run itself failed.\n");
	for (const struct row *row = table; row->name; row++) {
		char left[40];
		snprintf(left, sizeof left, "--%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
		printf("  %-18s %s\n", left, row->help);
	}
	exit(0);
}

static const struct row table[] = {
	{"memory", "SIZE", "memory of the guest, with K, M or G; 256M if not given", take_memory},
	{"read-only", NULL, "open the image for reading only; the guest's root is read-only", take_read_only},
	{"ephemeral", NULL, "the guest may write, but its changes vanish when it ends", take_ephemeral},
	{"env", "NAME=VALUE", "set a variable of the command's environment; may be repeated", take_env},
	{"workdir", "DIR", "directory in which the command starts; / if not given", take_workdir},
	{"hostname", "NAME", "host name of the guest; nabla if not given", take_hostname},
	{"kernel", "PATH", "kernel to start; else $NABLA_KERNEL, else the one beside nabla-run", take_kernel},
	{"append", "STRING", "further parameters for the kernel", take_append},
	{"verbose", NULL, "show the kernel's messages", take_verbose},
	{"dry-run", NULL, "print the kernel's command line instead of starting it", take_dry_run},
	{"version", NULL, "print the version", take_version},
	{"help", NULL, "print this text", take_help},
	{NULL, NULL, NULL, NULL},
};

static const struct row *find_row(const char *name, size_t length)
{
	for (const struct row *row = table; row->name; row++)
		if (strlen(row->name) == length && !memcmp(row->name, name, length))
			return row;
	return NULL;
}

/* Takes the option at argv[0], with its value in the same word or in the next; returns how many words that were. */
static int take_option(struct options *o, char **argv)
{
	const char *name = argv[0] + 2;
	const char *sign = strchr(name, '=');
	int length = sign ? (int)(sign - name) : (int)strlen(name);
	const struct row *row = find_row(name, (size_t)length);
	if (!row)
		fail(SEE_HELP, "unknown option --%.*s", length, name);
	if (!row->value) {
		if (sign)
			fail(SEE_HELP, "--%s takes no value", row->name);
		row->take(o, NULL);
		return 1;
	}
	const char *value = sign ? sign + 1 : argv[1];
	if (!value)
		fail(SEE_HELP, "--%s needs a value: %s", row->name, row->value);
	row->take(o, value);
	return sign ? 1 : 2;
}

void options_parse(struct options *o, char **argv)
{
	static char *nothing[] = {NULL};
	*o = (struct options){.memory = MEMORY_DEFAULT, .workdir = "/", .hostname = "nabla", .command = nothing};

	/* A caller may start us with no words at all, not even our name. */
	char **word = *argv ? argv + 1 : argv;
	while (*word) {
		if (!strcmp(*word, "--")) {
			o->command = word + 1;
			break;
		}
		if (!strcmp(*word, "-h"))
			take_help(o, NULL);
		if (!strncmp(*word, "--", 2)) {
			word += take_option(o, word);
		} else if (**word == '-' && (*word)[1]) {
			fail(SEE_HELP, "unknown option %s", *word);
		} else if (o->image) {
			fail("a command comes after --", "unexpected argument '%s'", *word);
		} else {
			o->image = *word++;
		}
	}
	if (!o->image)
		fail(SEE_HELP, "no image given");
	if (!*o->image)
		fail(NULL, "the name of the image is empty");
	if (o->command[0] && !*o->command[0])
		fail(NULL, "the name of the command is empty");
	if (o->read_only && o->ephemeral)
		fail("choose one", "--read-only and --ephemeral exclude each other");
}
