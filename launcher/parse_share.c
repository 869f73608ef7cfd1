// SPDX-License-Identifier: Apache-2.0
// Parses the values of --mount and --name.
#include "parse.h"

#include "control_folder.h"
#include "diag.h"

#include <stdlib.h>
#include <string.h>

#define HINT "write HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:cache; GUEST is an absolute path"
#define PATH_LENGTH_MAX 1024

/* Removes superfluous slashes. Returns false for a path that is not absolute, or that has . or .. in it. */
static bool tidy(char *path)
{
	char *to = path;
	if (*path != '/')
		return false;
	for (const char *word = path; *(word += strspn(word, "/"));) {
		size_t length = strcspn(word, "/");
		if (word[0] == '.' && (length == 1 || (length == 2 && word[1] == '.')))
			return false;
		*to++ = '/';
		memmove(to, word, length);
		to += length;
		word += length;
	}
	*to = '\0';
	return true;
}

static void set_flag(bool *flag, const char *value)
{
	if (*flag)
		fail(NULL, "--mount: '%s' repeats a flag", value);
	*flag = true;
}

PARSE(mount)
{
	struct share share = {NULL, NULL, false, false};
	char *host = strdup(value);
	if (!host)
		fail(NULL, "out of memory");
	char *guest = strchr(host, ':');
	if (!guest || guest == host)
		fail(HINT, "--mount: '%s' does not name two directories", value);
	*guest++ = '\0';
	char *flags = strchr(guest, ':');
	while (flags) {
		*flags++ = '\0';
		char *next = strchr(flags, ':');
		size_t length = next ? (size_t)(next - flags) : strlen(flags);
		if (length == 2 && !memcmp(flags, "ro", length))
			set_flag(&share.read_only, value);
		else if (length == 5 && !memcmp(flags, "cache", length))
			set_flag(&share.cache, value);
		else
			fail(HINT, "--mount: '%s': unknown flag '%.*s'", value, length < 1000 ? (int)length : 1000, flags);
		flags = next;
	}
	if (!tidy(guest) || strlen(guest) > PATH_LENGTH_MAX)
		fail(HINT, "--mount: '%s' is not a directory of the guest", guest);
	if (!*guest)
		fail("give the directory instead of an image", "--mount: the root of the guest cannot be replaced");
	for (size_t i = 1; i <= o->mount_count; i++)
		if (!strcmp(o->shares[i].guest, guest))
			fail("choose another one", "--mount: two directories for %s", guest);
	if (o->mount_count == SHARES_MAX - 1)
		fail(NULL, "--mount: a VM has at most %d shared directories", SHARES_MAX - 1);
	share.host = host;
	share.guest = guest;
	o->shares[++o->mount_count] = share;
}

PARSE(name)
{
	if (!control_name_is_valid(value))
		fail("use 1 to 64 letters, digits, '-', '.' and '_', beginning with a letter or digit",
		     "--name: '%s' is not a name", value);
	o->name = value;
}
