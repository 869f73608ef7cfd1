// SPDX-License-Identifier: Apache-2.0
// Commands that the VMs' brokers answer without the guest.
#include "client.h"

#include "control_folder.h"
#include "diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct peer peer;

/* Returns the answer, and its length; NULL if the VM has ended. */
static const char *ask(enum control_request request, size_t *length)
{
	struct control_header h;
	const uint8_t *content;
	if (!peer_send(&peer, CONTROL_ASK, 0, &(const uint8_t){(uint8_t)request}, 1))
		return NULL;
	while ((content = peer_receive(&peer, &h)))
		if (h.type == CONTROL_ANSWER)
			break;
	*length = content ? h.length : 0;
	return (const char *)content;
}

/* Prints text that may contain control characters. */
static void print_text(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		putchar((unsigned char)text[i] >= ' ' && text[i] != 0x7f ? text[i] : text[i] == '\n' ? '\n' : '?');
}

/* For each of the names, at least one. Prints the answers, with `end` after each; waits until the VMs have ended if
 * `stays`. */
static int ask_each(char **names, enum control_request request, const char *end, bool stays)
{
	if (!*names)
		fail_with(EXIT_BAD_INPUT, "nabla ps lists them", "no VM given");
	for (char **name = names; *name; name++)
		if (!control_name_is_valid(*name))
			fail_with(EXIT_BAD_INPUT, "nabla ps lists the names", "'%s' is not the name of a VM", *name);
	for (; *names; names++) {
		struct control_header h;
		size_t length = 0;
		peer_open(&peer, *names);
		const char *text = ask(request, &length);
		/* a VM that has ended is the requested result */
		if (!text && !stays)
			fail(NULL, "VM %s has ended", *names);
		print_text(text, length);
		fputs(length ? end : "", stdout);
		while (stays && peer_receive(&peer, &h))
			;
		close(peer.fd);
	}
	return 0;
}

int client_stop(char **words)
{
	return ask_each(words, CONTROL_ASK_STOP, "", true);
}

int client_kill(char **words)
{
	return ask_each(words, CONTROL_ASK_KILL, "", true);
}

int client_pause(char **words)
{
	return ask_each(words, CONTROL_ASK_PAUSE, "", false);
}

int client_resume(char **words)
{
	return ask_each(words, CONTROL_ASK_RESUME, "", false);
}

int client_stats(char **words)
{
	return ask_each(words, CONTROL_ASK_STATS, "\n", false);
}

int client_port(char **words)
{
	return ask_each(words, CONTROL_ASK_PORTS, "", false);
}

/* A terminal gets no control characters, a file or pipe gets the guest's bytes. */
int client_logs(char **words)
{
	struct control_header h;
	size_t length = 0;
	bool terminal = isatty(STDOUT_FILENO);
	if (!words[0])
		fail_with(EXIT_BAD_INPUT, "nabla ps lists them", "no VM given");
	if (words[1])
		fail_with(EXIT_BAD_INPUT, "nabla logs NAME", "unexpected argument '%s'", words[1]);
	if (!control_name_is_valid(*words))
		fail_with(EXIT_BAD_INPUT, "nabla ps lists the names", "'%s' is not the name of a VM", *words);
	peer_open(&peer, *words);
	const char *text = ask(CONTROL_ASK_LOGS, &length);
	if (!text)
		fail(NULL, "VM %s has ended", *words);
	if (length != 1 || !*text)
		fail("start it with its output to a file or a pipe", "VM %s writes to a terminal, and nothing is kept", *words);
	while ((text = (const char *)peer_receive(&peer, &h))) {
		if (terminal)
			print_text(text, h.length);
		else if (h.length && fwrite(text, h.length, 1, stdout) != 1)
			fail(NULL, "cannot write the output: %s", strerror(errno));
	}
	return 0;
}

/* --- ps -------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Returns the names of all sockets, sorted. */
static char **list(int folder, size_t *count)
{
	char **names = NULL;
	const struct dirent *entry;
	*count = 0;
	int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = again < 0 ? NULL : fdopendir(again);
	while (stream && (entry = readdir(stream))) {
		if (!control_name_is_valid(entry->d_name))
			continue;
		names = realloc(names, (*count + 1) * sizeof *names);
		if (!names || !(names[(*count)++] = strdup(entry->d_name)))
			fail(NULL, "out of memory");
	}
	if (stream)
		closedir(stream);
	if (*count)
		qsort(names, *count, sizeof *names, by_name);
	return names;
}

/* A socket that is being created is not stale: its creator holds the lock. */
static void remove_stale(int folder, const char *name)
{
	int fd;
	control_lock(folder);
	if (control_connect(folder, name, &fd) == CONTROL_FOUND_STALE)
		unlinkat(folder, name, 0);
	else if (fd >= 0)
		close(fd);
	control_unlock(folder);
}

/* STATE, PID, IMAGE and COMMAND, separated by tabs. */
static void print_row(const char *name, const char *text, size_t length)
{
	const char *field[4] = {"", "", "", ""};
	int size[4] = {0};
	const char *end = text + length;
	for (int i = 0; i < 4 && text <= end; i++) {
		const char *tab = i < 3 ? memchr(text, '\t', (size_t)(end - text)) : NULL;
		field[i] = text;
		size[i] = (int)((tab ? tab : end) - text);
		text = tab ? tab + 1 : end + 1;
	}
	printf("%-20s %-8.*s %-8.*s ", name, size[0], field[0], size[1], field[1]);
	print_text(field[2], (size_t)size[2]);
	putchar(size[3] ? ' ' : '\n');
	print_text(field[3], (size_t)size[3]);
	if (size[3])
		putchar('\n');
}

int client_ps(char **words)
{
	bool json = *words && !strcmp(*words, "--json");
	const char *why = NULL, *separator = "";
	size_t count = 0, length;
	if (words[0] && (!json || words[1]))
		fail_with(EXIT_BAD_INPUT, "nabla ps [--json]", "unexpected argument '%s'", words[json ? 1 : 0]);
	int folder = control_folder(false, &why);
	if (folder < 0 && why)
		fail(NULL, "cannot open the folder of sockets: %s", why);
	char **names = folder < 0 ? NULL : list(folder, &count);
	fputs(json ? "[" : "NAME                 STATE    PID      IMAGE COMMAND\n", stdout);
	for (size_t i = 0; i < count; i++) {
		enum control_found found = control_connect(folder, names[i], &peer.fd);
		if (found == CONTROL_FOUND_STALE)
			remove_stale(folder, names[i]);
		if (found != CONTROL_FOUND)
			continue;
		peer.name = names[i];
		peer.have = peer.used = 0;
		const char *text = ask(json ? CONTROL_ASK_INFO : CONTROL_ASK_LINE, &length);
		if (text && json)
			printf("%s\n%.*s", separator, (int)length, text);
		else if (text)
			print_row(names[i], text, length);
		separator = text ? "," : separator;
		close(peer.fd);
	}
	if (json)
		puts(*separator ? "\n]" : "]");
	return 0;
}
