// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SETTINGS_PATH
#define SETTINGS_PATH "/proc/nabla/settings"
#endif

/* Default environment of a command; the launcher can override the variables. */
static char *const defaults[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root",
	"USER=root",
	"LOGNAME=root",
	"SHELL=/bin/sh",
	"TERM=linux",
};
#define DEFAULT_COUNT (sizeof defaults / sizeof *defaults)

/* Kept open if they are read again, in a restored VM. */
static int again = -1;

/* Returns all settings, each NUL-terminated, and their total length; NULL if there are none. */
static char *read_all(size_t *length)
{
	int fd = again >= 0 ? again : open(SETTINGS_PATH, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	static char first[2048]; /* large enough for most boots */
	char *text = first;
	size_t size = sizeof first;
	*length = 0;
	for (;;) {
		ssize_t got = pread(fd, text + *length, size - 1 - *length, (off_t)*length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		*length += (size_t)got;
		if (*length < size - 1)
			continue;
		char *bigger = malloc(size *= 2);
		if (!bigger) {
			log_error("settings", strerror(ENOMEM));
			break;
		}
		memcpy(bigger, text, *length);
		text = bigger; /* the old buffer is not freed: this happens once per boot */
	}
	again = fd;
	text[*length] = '\0';
	return text;
}

static size_t name_length(const char *variable)
{
	return strcspn(variable, "=") + 1;
}

void settings_variable(char **env, char *variable)
{
	while (*env && strncmp(*env, variable, name_length(variable)))
		env++;
	if (!*env)
		env[1] = NULL;
	*env = variable;
}

bool settings_default(struct settings *s, char *variable)
{
	bool used = false;
	for (char **at = s->env; *at; at++) {
		if (strncmp(*at, variable, name_length(variable)))
			continue;
		for (size_t i = 0; i < DEFAULT_COUNT; i++)
			if (!used && *at == defaults[i]) {
				*at = variable;
				used = true;
			}
		break;
	}
	return used;
}

/* The positions after the last word of each list. */
struct ends {
	char **argument, **server, **service, **mount, **host;
};

static void parse_entry(struct settings *s, char *entry, struct ends *next)
{
	char *value = strchr(entry, '=');
	if (!value)
		return;
	size_t key = (size_t)(value++ - entry);
#define IS(name) (key == sizeof name - 1 && !memcmp(entry, name, key))
	if (IS("arg")) {
		*next->argument++ = value;
		*next->argument = NULL;
	} else if (IS("env") && strchr(value, '=')) {
		settings_variable(s->env, value);
	} else if (IS("workdir")) {
		s->workdir = value;
	} else if (IS("hostname")) {
		s->hostname = value;
	} else if (IS("user")) {
		s->user = value;
	} else if (IS("address")) {
		s->address = value;
	} else if (IS("gateway")) {
		s->gateway = value;
	} else if (IS("mtu")) {
		s->mtu = value;
	} else if (IS("dns")) {
		*next->server++ = value;
	} else if (IS("host")) {
		*next->host++ = value;
	} else if (IS("service")) {
		*next->service++ = value;
	} else if (IS("mount")) {
		*next->mount++ = value;
	} else if (IS("discard")) {
		s->discard = true;
	} else if (IS("control")) {
		s->control = true;
	} else if (IS("save")) {
		s->save = true;
	} else if (IS("tty")) {
		s->terminal = *value == '1';
	}
#undef IS
}

void settings_read(struct settings *s, char **argv)
{
	static bool keep;
	size_t length = 0, count = 0;
	char *text = read_all(&length);
	for (size_t i = 0; i < length; i++)
		count += text[i] == '\0';

	/* Each setting adds at most one word to one vector, so no vector can overflow. */
	char **vectors = calloc(6 * (count + 2) + DEFAULT_COUNT + 1, sizeof *vectors);
	if (!vectors) {
		log_error("settings", strerror(ENOMEM));
		_exit(1);
	}
	*s = (struct settings){
		.command = vectors,
		.servers = vectors + count + 2,
		.services = vectors + 2 * (count + 2),
		.mounts = vectors + 3 * (count + 2),
		.hosts = vectors + 4 * (count + 2),
		.env = vectors + 5 * (count + 2),
		.workdir = "/",
		.terminal = !text,
	};
	for (size_t i = 0; i < DEFAULT_COUNT; i++)
		settings_variable(s->env, defaults[i]);

	struct ends next = {s->command, s->servers, s->services, s->mounts, s->hosts};
	for (char *entry = text; entry && entry < text + length; entry += strlen(entry) + 1)
		parse_entry(s, entry, &next);
	if (!text && argv[0] && argv[1])
		s->command = argv + 1;
	if (!*s->command)
		s->command = NULL;
	keep = keep || s->save;
	if (!keep && again >= 0) {
		close(again);
		again = -1;
	}
}
