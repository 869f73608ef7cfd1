// SPDX-License-Identifier: Apache-2.0
// The output format "name: value" is stable, for people and scripts.
#include "dry_run.h"

#include "fence.h"

#include <stdio.h>
#include <string.h>

/* Prints words quoted for a shell. */
static void print_quoted(const char *title, const char *const *words)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:=@%+";
	printf("%s:", title);
	for (; *words; words++) {
		const char *word = *words;
		putchar(' ');
		if (*word && word[strspn(word, plain)] == '\0') {
			fputs(word, stdout);
			continue;
		}
		putchar('\'');
		for (; *word; word++)
			*word == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*word);
		putchar('\'');
	}
	putchar('\n');
}

static void print_path(const char *title, const char *path)
{
	const char *const words[] = {path, NULL};
	print_quoted(title, words);
}

static void print_descriptors(const struct vm *vm)
{
	static const char *const streams[] = {"standard input", "standard output", "standard error"};
	const struct options *o = vm->options;
	char title[64];
	for (int fd = 0; fd < FD_DISK; fd++)
		printf("descriptor %d: %s\n", fd, streams[fd]);
	for (size_t i = o->disks[0].directory ? 1 : 0; i < o->disk_count; i++) {
		const struct disk *disk = &o->disks[i];
		snprintf(title, sizeof title, "descriptor %zu, disk, %s", FD_DISK + i,
			 disk->read_only ? "read-only" : disk->cow ? "copy on write" : "read and write");
		print_path(title, disk->path);
	}
	switch (o->net.kind) {
	case NET_NONE: break;
	case NET_TAP: printf("descriptor %d: network, tap interface %s\n", FD_NETWORK, o->net.tap); break;
	case NET_FD: printf("descriptor %d: network, inherited descriptor %d\n", FD_NETWORK, o->net.fd); break;
	case NET_USER: printf("descriptor %d: network, socket to the network helper\n", FD_NETWORK); break;
	}
	printf("descriptor %d: status page\n", FD_STATUS);
	for (size_t i = o->disks[0].directory ? SHARE_ROOT : 1; i <= o->mount_count; i++) {
		const struct share *share = &o->shares[i];
		snprintf(title, sizeof title, "descriptor %zu, directory, %s%s", FD_STREAM + i,
			 share->read_only ? "read-only" : "read and write", share->cache ? ", cached" : "");
		print_path(title, share->host);
	}
	if (o->name)
		printf("descriptor %d: control, socket to the broker of name %s\n", FD_CONTROL, o->name);
}

static void print_rules(const struct net *net)
{
	print_quoted("network gate", fence_command(net));
	for (size_t i = 0; i < net->rule_count; i++)
		printf("network rule: %s %s\n", net->rules[i].deny ? "deny" : "allow", net->rules[i].text);
}

static void print_limits(const struct vm *vm)
{
	for (int i = 0; i < LIMITS; i++)
		if (vm->limits[i].value == RLIM_INFINITY)
			printf("limit %s: unlimited\n", vm->limits[i].name);
		else
			printf("limit %s: %llu\n", vm->limits[i].name, (unsigned long long)vm->limits[i].value);
}

static void print_bound(const char *title, uint64_t bytes)
{
	if (bytes == UNLIMITED)
		printf("%s: unlimited\n", title);
	else
		printf("%s: %llu\n", title, (unsigned long long)bytes);
}

void dry_run_print(const struct vm *vm)
{
	const struct options *o = vm->options;
	const char *const *helper = network_command(o);
	print_path("kernel", vm->kernel.path);
	if (vm->start.restored)
		puts("start: restored");
	else
		printf("start: cold, %s\n", vm->start.why);
	print_quoted("command", (const char *const *)vm->arguments);
	print_descriptors(vm);
	if (helper)
		print_quoted("network helper", helper);
	if (o->net.rule_count)
		print_rules(&o->net);
	printf("user: %u:%u\n", o->run_as.uid, o->run_as.gid);
	printf("namespaces: %s\n", o->jail ? "mount, pid, net, ipc, uts" : "none");
	print_limits(vm);
	printf("nice: %d\n", o->nice);
	print_bound("output", o->max_output);
	print_bound("copy-on-write memory", o->max_cow);
	if (o->timeout_ns)
		printf("timeout: %g seconds\n", (double)o->timeout_ns / 1e9);
	if (o->trace_policy)
		puts("policy: NOT ENFORCED, forbidden host calls are logged and allowed");
}
