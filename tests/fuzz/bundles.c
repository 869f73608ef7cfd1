// SPDX-License-Identifier: Apache-2.0
/*
 * A coverage-guided fuzzer of nabla-oci's reader of config.json: it keeps configurations that reach new code, and mutates
 * them. It is compiled together with json-c and with the parts of oci/ that read configurations, with sanitizers and
 * -fsanitize-coverage=trace-pc.
 *
 *   bundles SEED ROUNDS
 *
 * Ends with status 0; a finding ends it by a sanitizer or by abort(). Prints how many were kept, and how many were accepted.
 */
#include "container.h"
#include "coverage.h"
#include "diag.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS 4096
#define TEXT 8192

/* --- instead of diag.c: an error ends a round ------------------------------------------------------------------------------ */

static jmp_buf refused;

void fail(const char *hint, const char *format, ...)
{
	char line[4096];
	va_list args;
	va_start(args, format);
	if (vsnprintf(line, sizeof line, format, args) <= 0 || (hint && !*hint))
		abort();
	va_end(args);
	longjmp(refused, 1);
}

void warn(const char *format, ...)
{
	(void)format;
}

/* --- configurations ------------------------------------------------------------------------------------------------------ */

struct text {
	uint32_t size;
	char bytes[TEXT];
};

static struct text *corpus[CORPUS];
static size_t corpus_size;

static const char first[] =
	"{\"ociVersion\":\"1.0.2-dev+x\",\"process\":{\"terminal\":true,\"consoleSize\":{\"height\":1,\"width\":2},\"user\":{\"uid\":1,"
	"\"gid\":2,\"umask\":18,\"additionalGids\":[3]},\"args\":[\"a\",\"b\"],\"env\":[\"A=b\"],\"cwd\":\"/\",\"oomScoreAdj\":1,"
	"\"capabilities\":{\"bounding\":[\"CAP_KILL\"]},\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"soft\":1,\"hard\":2}]},"
	"\"root\":{\"path\":\"r\",\"readonly\":true},\"hostname\":\"h\",\"domainname\":\"d\",\"mounts\":[{\"destination\":\"/a\","
	"\"type\":\"bind\",\"source\":\"/b\",\"options\":[\"rbind\",\"ro\"]},{\"destination\":\"/a/b\",\"type\":\"tmpfs\",\"options\":["
	"\"size=1\",\"tmpcopyup\"]},{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\"}],\"annotations\":{\"org.nabla-linux.memory\":"
	"\"64M\"},\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"args\":[\"y\"],\"env\":[\"z\"],\"timeout\":1}]},\"linux\":{\"namespaces\":["
	"{\"type\":\"pid\"},{\"type\":\"network\",\"path\":\"/n\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"}],\"sysctl\":"
	"{\"a.b\":\"1\"},\"devices\":[{\"path\":\"/dev/null\"}],\"maskedPaths\":[\"/x\"],\"readonlyPaths\":[\"/y\"],\"cgroupsPath\":"
	"\"/c\",\"seccomp\":{\"listenerPath\":\"\"},\"personality\":{\"domain\":\"LINUX\",\"flags\":[]},\"resources\":{\"memory\":"
	"{\"limit\":99999999,\"swap\":199999999,\"reservation\":1},\"cpu\":{\"shares\":2,\"quota\":3,\"period\":4,\"cpus\":\"0\","
	"\"mems\":\"0\"},\"pids\":{\"limit\":5},\"unified\":{\"io.max\":\"x\"}}}}";

static void insert(struct text *t, uint32_t at, const char *what, uint32_t size)
{
	if (size > TEXT - t->size)
		return;
	memmove(t->bytes + at + size, t->bytes + at, t->size - at);
	memcpy(t->bytes + at, what, size);
	t->size += size;
}

static void cut(struct text *t, uint32_t at, uint32_t size)
{
	if (size > t->size - at)
		size = t->size - at;
	memmove(t->bytes + at, t->bytes + at + size, t->size - at - size);
	t->size -= size;
}

/* The length of the word, number or sign at a place. */
static uint32_t word(const struct text *t, uint32_t at)
{
	uint32_t length = 1;
	bool quoted = t->bytes[at] == '"';
	while (at + length < t->size && (quoted ? t->bytes[at + length - 1] != '"' || length == 1
						: !strchr("\"{}[],:", t->bytes[at + length])))
		length++;
	return length;
}

static void change(struct text *t)
{
	static const char *const words[] = {
		"null", "true", "-1", "0", "1e99", "18446744073709551616", "-9223372036854775808", "4294967295", "{}", "[]", "\"\"",
		"\"/\"", "\"/a/../b\"", "\"/proc/x\"", "\"x\\u0000y\"", "\"\\ud800\"", "[[[[]]]]", "\"1.0.0-\"", "\"/dev\"", "\"bind\"",
		"\"cgroup\"", "\"user\"", "\"rshared\"", "\"mode=1\"", "\"CAP_X\"", "\"RLIMIT_NOFILE\"", "{\"type\":\"time\"}", ",", "\"512G\"",
	};
	uint32_t at = t->size ? draw(t->size) : 0;
	const char *other = words[draw(sizeof words / sizeof *words)];
	switch (draw(6)) {
	case 0: /* another word instead of one */
		cut(t, at, t->size ? word(t, at) : 0);
		insert(t, at, other, (uint32_t)strlen(other));
		break;
	case 1:
		insert(t, at, other, (uint32_t)strlen(other));
		break;
	case 2:
		cut(t, at, draw(20));
		break;
	case 3: /* a part of another one */
		if (corpus_size) {
			const struct text *from = corpus[draw((uint32_t)corpus_size)];
			uint32_t start = from->size ? draw(from->size) : 0, size = draw(200);
			insert(t, at, from->bytes + start, size < from->size - start ? size : from->size - start);
		}
		break;
	case 4: /* twice */
		if (t->size) {
			char copy[200];
			uint32_t size = draw(sizeof copy);
			size = size < t->size - at ? size : t->size - at;
			memcpy(copy, t->bytes + at, size);
			insert(t, at, copy, size);
		}
		break;
	default:
		if (t->size)
			t->bytes[at] = (char)(draw(2) ? t->bytes[at] ^ 1 << draw(8) : (int)draw(256));
	}
}

/* --- what holds for each one that is accepted ------------------------------------------------------------------------------ */

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check(const struct container *c)
{
	expect(c->memory >= MEMORY_MIN && *c->root && !strncmp(c->version, "1.", 2));
	expect(!c->process.present || (c->process.args[0] && *c->process.cwd == '/'));
	expect(!c->process.present || (c->process.uid != UINT32_MAX && c->process.gid != UINT32_MAX));
	for (size_t i = 0; i < c->mount_count; i++) {
		const struct mount *m = &c->mounts[i];
		const char *d = m->destination;
		size_t length = strlen(d);
		expect(*d == '/' && length > 1 && d[length - 1] != '/' && !strstr(d, "//") && !strstr(d, "/../"));
		expect(length < 3 || strcmp(d + length - 3, "/.."));
		expect(!path_is_below(d, "/proc") && !path_is_below(d, "/sys") && !path_is_below(d, "/dev"));
		expect((m->kind == MOUNT_BIND) == !!m->source);
		/* a tmpfs of the guest would hide mounts below it */
		for (size_t j = i + 1; m->kind == MOUNT_TMPFS_GUEST && j < c->mount_count; j++)
			expect(!path_is_below(c->mounts[j].destination, d));
	}
	for (size_t i = 0; i < c->sysctl_count; i++)
		expect(!strchr(c->sysctls[i].name, '/') && !strstr(c->sysctls[i].name, ".."));
	for (size_t i = 0; i < c->cgroup_setting_count; i++)
		expect(!strchr(c->cgroup_settings[i].name, '/'));
	expect(!c->cgroup || !strstr(c->cgroup, ".."));
	expect(!c->network_path || *c->network_path == '/');
}

static bool parse(const struct text *t)
{
	static struct container c;
	static struct json_object *volatile document;
	static volatile bool accepted;
	const char *error;
	/* an exact allocation, so that the sanitizer detects each access beyond it */
	char *copy = malloc(t->size ? t->size : 1);
	memcpy(copy, t->bytes, t->size);
	accepted = false;
	memset(hits, 0, sizeof hits);
	tracing = true;
	document = json_parse(copy, t->size, &error);
	expect(document || *error);
	if (document && !setjmp(refused)) {
		container_parse(document, &c);
		check(&c);
		accepted = true;
	}
	tracing = false;
	json_object_put(document);
	free(copy);
	return accepted;
}

int main(int argc, char **argv)
{
	static struct text now;
	if (argc != 3)
		return 2;
	state = strtoull(argv[1], NULL, 10) * 2 + 1;
	unsigned long rounds = strtoul(argv[2], NULL, 10), accepted = 0;
	now.size = sizeof first - 1;
	memcpy(now.bytes, first, now.size);
	expect(parse(&now)); /* otherwise the code behind it would not be tested */
	for (unsigned long round = 0; round < rounds; round++) {
		now.size = sizeof first - 1;
		memcpy(now.bytes, first, now.size);
		if (corpus_size && draw(8))
			now = *corpus[draw((uint32_t)corpus_size)];
		for (uint32_t count = 1 + draw(4); count; count--)
			change(&now);
		accepted += parse(&now);
		if (is_new() && corpus_size < CORPUS) {
			corpus[corpus_size] = malloc(sizeof now);
			*corpus[corpus_size++] = now;
		}
	}
	printf("%zu kept, %lu accepted\n", corpus_size, accepted);
	return 0;
}
