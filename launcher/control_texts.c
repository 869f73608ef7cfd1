// SPDX-License-Identifier: Apache-2.0
#include "broker.h"
#include "control.h"
#include "diag.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* An answer of the broker is short: text that does not fit is left out, and the JSON stays valid. */
#define TEXT_MAX 3900
#define VALUE_MAX 1000

static void put_string(FILE *out, const char *text)
{
	putc('"', out);
	for (size_t n = 0; *text && n < VALUE_MAX; text++, n++)
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < ' ' || *text == 0x7f)
			fprintf(out, "\\u%04x", *text);
		else
			putc(*text, out);
	putc('"', out);
}

static void put_command(FILE *out, char **command, long most)
{
	fputs("\"command\":[", out);
	for (char **word = command; *word && ftell(out) + 6 * (long)strnlen(*word, VALUE_MAX) + 8 < most; word++) {
		if (word != command)
			putc(',', out);
		put_string(out, *word);
	}
	fputs("]}", out);
}

static const char *address_of(const struct publish *p)
{
	return p->address ? p->address : "127.0.0.1";
}

static void put_ports(FILE *out, const struct net *net)
{
	for (size_t i = 0; i < net->publish_count && ftell(out) < TEXT_MAX - 64; i++) {
		const struct publish *p = &net->publish[i];
		fprintf(out, "%u/%s -> %s:%u\n", p->guest_port, p->udp ? "udp" : "tcp", address_of(p), p->host_port);
	}
}

static void put_info(FILE *out, const struct options *o, pid_t launcher)
{
	fputs("\"name\":", out);
	put_string(out, o->name);
	fprintf(out, ",\"pid\":%d,\"started\":%lld,\"memory\":%llu,\"image\":", launcher, (long long)time(NULL),
		(unsigned long long)o->memory);
	put_string(out, o->disks[0].path);
	putc(',', out);
	put_command(out, o->command, TEXT_MAX);
}

static void put_line(FILE *out, const struct options *o, pid_t launcher)
{
	fprintf(out, "%d\t%.*s\t", launcher, VALUE_MAX, o->disks[0].path);
	for (char **word = o->command; *word && ftell(out) < TEXT_MAX - VALUE_MAX; word++)
		fprintf(out, "%s%.*s", word == o->command ? "" : " ", VALUE_MAX, *word);
}

static const char *end_text(FILE *out, char **text)
{
	if (fclose(out) || !*text)
		fail(NULL, "out of memory");
	return *text;
}

void control_describe(const struct options *o, pid_t launcher, struct broker_texts *texts)
{
	static char *kept[3];
	size_t size;
	FILE *out[3];
	for (int i = 0; i < 3; i++)
		if (!(out[i] = open_memstream(&kept[i], &size)))
			fail(NULL, "out of memory");
	put_info(out[0], o, launcher);
	put_line(out[1], o, launcher);
	put_ports(out[2], &o->net);
	texts->info = end_text(out[0], &kept[0]);
	texts->line = end_text(out[1], &kept[1]);
	texts->ports = end_text(out[2], &kept[2]);
}
