// SPDX-License-Identifier: Apache-2.0
// Parses the command line and checks combinations of options.
#include "options.h"

#include "diag.h"
#include "rules.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_DEFAULT (UINT64_C(256) << 20)
#define NOBODY 65534 /* the overflow user, which owns no files */

/* With --jail, which is for untrusted code. */
#define JAIL_CPU_TIME_NS (3600 * UINT64_C(1000000000))
#define JAIL_MAX_OUTPUT (UINT64_C(256) << 20)
#define JAIL_MAX_COW (UINT64_C(1) << 30)
#define JAIL_NICE 5

#define NOT_GIVEN (UNLIMITED - 1)
#define NICE_NOT_GIVEN (-1)

#define SEE_HELP "see nabla-run --help"

static const struct row *find_row(const char *name, size_t length)
{
	for (const struct row *row = option_table; row->name; row++)
		if (row->parse && strlen(row->name) == length && !memcmp(row->name, name, length))
			return row;
	return NULL;
}

/* Parses the option at argv[0] with its value, if any. Returns the number of words used. */
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

/* Both have the same number in the namespace of passt. */
static void check_not_published(void *context, uint16_t port)
{
	const struct net *net = context;
	for (size_t i = 0; i < net->publish_count; i++)
		if (net->publish[i].host_port == port)
			fail("publish another port", "--allow: port %u of the host's loopback is published, too", port);
}

static void check_network(struct options *o)
{
	struct net *net = &o->net;
	if (net->publish_count) {
		if (!o->net_given)
			net->kind = NET_USER;
		else if (net->kind != NET_USER)
			fail("use --net user", "--publish requires --net user");
	}
	if (net->rule_count) {
		if (!o->net_given)
			net->kind = NET_USER;
		else if (net->kind != NET_USER)
			fail("use --net user", "--%s requires --net user", net->rules[0].deny ? "deny" : "allow");
		rules_loopback(net, check_not_published, net);
	}
	if (net->kind == NET_USER && net->address && !net->gateway)
		fail("write ADDRESS/PREFIX,GATEWAY", "--ip: user networking needs a gateway");
	if (net->kind == NET_NONE && net->dns_count)
		fail("add --net", "--dns: the VM has no network");
	if (net->kind == NET_NONE && net->address)
		fail("add --net", "--ip: the VM has no network");
}

/* Tracing disables the policy, so the VM must have nothing worth protecting. */
static void check_trace(const struct options *o)
{
	if (!o->trace_policy)
		return;
	if (!geteuid())
		fail("start it as an ordinary user", "--trace-policy is not allowed for root");
	if (o->net.kind != NET_NONE)
		fail(NULL, "--trace-policy cannot be combined with a network");
	for (size_t i = 0; i < o->disk_count; i++)
		if (!o->disks[i].read_only && !o->disks[i].cow)
			fail(i ? "add ,ro or ,cow" : "add --ephemeral or --read-only",
			     "--trace-policy cannot be combined with a writable disk, %s", o->disks[i].path);
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
		fail("the VM of an ordinary user runs as that user",
		     "--run-as: only root can select another user");
	o->run_as = own;
}

static void choose_limit(uint64_t *limit, bool jail, uint64_t jail_default)
{
	if (*limit == NOT_GIVEN)
		*limit = jail ? jail_default : UNLIMITED;
}

static void choose_limits(struct options *o)
{
	choose_limit(&o->cpu_time_ns, o->jail, JAIL_CPU_TIME_NS);
	choose_limit(&o->max_output, o->jail, JAIL_MAX_OUTPUT);
	choose_limit(&o->max_cow, o->jail, JAIL_MAX_COW);
	if (o->nice == NICE_NOT_GIVEN)
		o->nice = o->jail ? JAIL_NICE : 0;
}

static void check(struct options *o)
{
	const struct disk *root = &o->disks[0];
	if (!root->path)
		fail(SEE_HELP, "no image given");
	if (!*root->path)
		fail(NULL, "the image name is empty");
	if (o->command[0] && !*o->command[0])
		fail(NULL, "the command name is empty");
	if (root->read_only && root->cow)
		fail("choose one", "--read-only and --ephemeral exclude each other");
	if (o->snapshot_then_exit && !o->snapshot)
		fail("add --snapshot FILE", "--snapshot-then-exit requires --snapshot");
	if (o->name && o->trace_policy)
		fail("it traces calls of the VM only; leave out one of them",
		     "--trace-policy cannot be combined with --name");
	if (o->cold && o->restore)
		fail("choose one", "--cold and --restore exclude each other");
	check_network(o);
	check_trace(o);
	choose_identity(o);
	choose_limits(o);
}

void options_parse(struct options *o, char **argv)
{
	static char *nothing[] = {NULL};
	*o = (struct options){
		.memory = MEMORY_DEFAULT,
		.disk_count = 1,
		.init = INIT_DEFAULT,
		.workdir = "/",
		.hostname = HOSTNAME_DEFAULT,
		.command = nothing,
		.stats_fd = -1,
		.cpu_time_ns = NOT_GIVEN,
		.max_output = NOT_GIVEN,
		.max_cow = NOT_GIVEN,
		.nice = NICE_NOT_GIVEN,
	};

	/* argv may be empty: execve does not require a program name. */
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
			fail("the command follows --", "unexpected argument '%s'", *word);
		} else {
			o->disks[0].path = *word++;
		}
	}
	check(o);
}
