// SPDX-License-Identifier: Apache-2.0
// From words to options, and what excludes each other among them.
#include "options.h"

#include "diag.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_DEFAULT (UINT64_C(256) << 20)
#define NOBODY 65534 /* on every Linux: the user that owns nothing */

#define SEE_HELP "see nabla-run --help"

static const struct row *find_row(const char *name, size_t length)
{
	for (const struct row *row = option_table; row->name; row++)
		if (row->parse && strlen(row->name) == length && !memcmp(row->name, name, length))
			return row;
	return NULL;
}

/* Takes the option at argv[0], with its value in the same word or in the next; returns how many words that were. */
static int parse_option(struct options *o, char **argv)
{
	const char *name = argv[0] + 2;
	const char *sign = strchr(name, '=');
	size_t length = sign ? (size_t)(sign - name) : strlen(name);
	const struct row *row = find_row(name, length);
	if (!row)
		fail(SEE_HELP, "unknown option --%.*s", length < 1000 ? (int)length : 1000, name);
	if (!row->value) {
		if (sign)
			fail(SEE_HELP, "--%s takes no value", row->name);
		row->parse(o, NULL);
		return 1;
	}
	const char *value = sign ? sign + 1 : argv[1];
	if (!value)
		fail(SEE_HELP, "--%s needs a value: %s", row->name, row->value);
	row->parse(o, value);
	return sign ? 1 : 2;
}

static void check_network(struct options *o)
{
	struct net *net = &o->net;
	if (net->publish_count) {
		if (!o->net_given)
			net->kind = NET_USER;
		else if (net->kind != NET_USER)
			fail("only --net user has a host to publish on", "--publish does not go with this --net");
	}
	if (net->kind == NET_USER && net->address && !net->gateway)
		fail("write ADDRESS/PREFIX,GATEWAY", "--ip: user networking needs the address of a gateway too");
	if (net->kind == NET_NONE && net->dns_count)
		fail("give --net", "--dns: the machine has no network");
	if (net->kind == NET_NONE && net->address)
		fail("give --net", "--ip: the machine has no network");
}

/* Who traces opens the border: there must be nothing behind it but what one can lose. */
static void check_trace(const struct options *o)
{
	if (!o->trace_policy)
		return;
	if (!geteuid())
		fail("start it as an ordinary user", "--trace-policy is not for root");
	if (o->net.kind != NET_NONE)
		fail(NULL, "--trace-policy does not go with a network");
	for (size_t i = 0; i < o->disk_count; i++)
		if (!o->disks[i].read_only && !o->disks[i].cow)
			fail(i ? "add ,ro or ,cow" : "add --ephemeral or --read-only",
			     "--trace-policy does not go with a disk that is written, %s", o->disks[i].path);
}

static void choose_identity(struct options *o)
{
	struct identity own = {geteuid(), getegid()};
	if (!own.uid) {
		if (!o->run_as_given)
			o->run_as = (struct identity){NOBODY, NOBODY};
		return;
	}
	if (o->run_as_given && (o->run_as.uid != own.uid || o->run_as.gid != own.gid))
		fail("without root, a machine runs as whoever starts it",
		     "--run-as: only root can become another user");
	o->run_as = own;
}

static void check(struct options *o)
{
	const struct disk *root = &o->disks[0];
	if (!root->path)
		fail(SEE_HELP, "no image given");
	if (!*root->path)
		fail(NULL, "the name of the image is empty");
	if (o->command[0] && !*o->command[0])
		fail(NULL, "the name of the command is empty");
	if (root->read_only && root->cow)
		fail("choose one", "--read-only and --ephemeral exclude each other");
	check_network(o);
	check_trace(o);
	choose_identity(o);
}

void options_parse(struct options *o, char **argv)
{
	static char *nothing[] = {NULL};
	*o = (struct options){
		.memory = MEMORY_DEFAULT,
		.disk_count = 1,
		.init = "/sbin/nabla-init",
		.workdir = "/",
		.hostname = "nabla",
		.command = nothing,
		.stats_fd = -1,
	};

	/* A caller may start us with no words at all, not even our name. */
	char **word = *argv ? argv + 1 : argv;
	while (*word) {
		if (!strcmp(*word, "--")) {
			o->command = word + 1;
			break;
		}
		if (!strcmp(*word, "-h")) {
			print_help();
			exit(0);
		}
		if (!strncmp(*word, "--", 2)) {
			word += parse_option(o, word);
		} else if (**word == '-' && (*word)[1]) {
			fail(SEE_HELP, "unknown option %s", *word);
		} else if (o->disks[0].path) {
			fail("a command comes after --", "unexpected argument '%s'", *word);
		} else {
			o->disks[0].path = *word++;
		}
	}
	check(o);
}
