// SPDX-License-Identifier: Apache-2.0
// nabla exec and nabla cp: sessions with the agent in the guest.
#include "client.h"
#include "client_tree.h"

#include "control_folder.h"
#include "diag.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXEC_USAGE "nabla exec [-i] [-t] [--env NAME=VALUE] [--workdir DIR] [--user USER] NAME -- COMMAND…"
#define CP_USAGE "nabla cp [-r] FILE NAME:PATH, or nabla cp [-r] NAME:PATH FILE"

static struct peer peer;

/* --- exec ------------------------------------------------------------------------------------------------------------ */

struct exec_words {
	bool input, terminal;
	const char *name;
};

static void add_variable(struct request *r, const char *text)
{
	r->variables = realloc(r->variables, (r->head.variables + 1u) * sizeof *r->variables);
	if (!r->variables)
		fail(NULL, "out of memory");
	r->variables[r->head.variables++] = text;
}

/* Returns the value of an option, and advances to its last word. */
static const char *value_of(char ***word, const char *name)
{
	size_t length = strlen(name);
	const char *text = **word;
	if (strncmp(text, name, length) || (text[length] && text[length] != '='))
		return NULL;
	if (text[length])
		return text + length + 1;
	if (!(*word)[1])
		fail_with(EXIT_BAD_INPUT, EXEC_USAGE, "%s needs a value", name);
	return *++*word;
}

static void parse_option(char ***word, struct request *r, struct exec_words *w)
{
	const char *text = **word, *value;
	if (!strcmp(text, "-i") || !strcmp(text, "-it") || !strcmp(text, "-ti") || !strcmp(text, "-t")) {
		w->input = w->input || strchr(text, 'i');
		w->terminal = w->terminal || strchr(text, 't');
	} else if ((value = value_of(word, "--env"))) {
		if (*value == '=' || !strchr(value, '='))
			fail_with(EXIT_BAD_INPUT, "write NAME=VALUE", "--env: '%s' is not an assignment", value);
		add_variable(r, value);
	} else if ((value = value_of(word, "--workdir"))) {
		if (*value != '/')
			fail_with(EXIT_BAD_INPUT, "write an absolute path of the guest", "--workdir: '%s' does not begin with /",
				  value);
		r->path = value;
	} else if ((value = value_of(word, "--user"))) {
		if (!*value)
			fail_with(EXIT_BAD_INPUT, "write USER or USER:GROUP", "--user: the name is empty");
		r->user = value;
	} else {
		fail_with(EXIT_BAD_INPUT, EXEC_USAGE, "unknown option %s", text);
	}
}

static void parse_exec(char **words, struct request *r, struct exec_words *w)
{
	char **word = words;
	for (; *word && **word == '-' && strcmp(*word, "--"); word++)
		parse_option(&word, r, w);
	if (!*word || !strcmp(*word, "--"))
		fail_with(EXIT_BAD_INPUT, EXEC_USAGE, "no VM given");
	w->name = *word++;
	if (*word && !strcmp(*word, "--"))
		word++;
	if (!*word || !**word)
		fail_with(EXIT_BAD_INPUT, EXEC_USAGE, "no command given");
	r->arguments = word;
	size_t count = 0;
	while (word[count])
		count++;
	if (count > UINT16_MAX)
		fail_with(EXIT_BAD_INPUT, NULL, "%zu arguments are too many", count);
	r->head.arguments = (uint16_t)count;
}

static void use_terminal(struct request *r)
{
	struct winsize size;
	const char *term = getenv("TERM");
	static char variable[256];
	if (!terminal_present())
		fail_with(EXIT_BAD_INPUT, "leave out -t", "-t: standard input and output are not a terminal");
	if (!ioctl(STDIN_FILENO, TIOCGWINSZ, &size)) {
		r->head.rows = size.ws_row;
		r->head.columns = size.ws_col;
	}
	for (size_t i = 0; i < r->head.variables; i++)
		if (!strncmp(r->variables[i], "TERM=", 5))
			term = NULL;
	if (term && *term && snprintf(variable, sizeof variable, "TERM=%s", term) < (int)sizeof variable)
		add_variable(r, variable);
	r->head.flags |= CONTROL_TERMINAL;
}

/* Only now, so that keys can end nabla until then. */
static void make_raw(void *context, uint32_t process)
{
	(void)context;
	(void)process;
	terminal_raw();
}

int client_exec(char **words)
{
	struct request r = {.head.kind = CONTROL_EXEC, .user = "", .path = ""};
	struct exec_words w = {.name = NULL};
	parse_exec(words, &r, &w);
	if (w.terminal)
		use_terminal(&r);
	if (w.input || w.terminal)
		r.head.flags |= CONTROL_INPUT;
	peer_open(&peer, w.name);
	terminal_remember(w.terminal);
	const struct streams streams = {
		.in = w.input || w.terminal ? STDIN_FILENO : -1,
		.out = {STDOUT_FILENO, STDERR_FILENO},
		.terminal = w.terminal,
		.started = make_raw,
	};
	int status = (int)session_run(&peer, &r, &streams);
	terminal_restore();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* --- cp -------------------------------------------------------------------------------------------------------------- */

/* Splits NAME:PATH. Returns the path, or NULL for a file of the host, such as a word with a slash before the colon. */
static const char *guest_path(char *word)
{
	char *colon = strchr(word, ':'), *slash = strchr(word, '/');
	if (!colon || (slash && slash < colon))
		return NULL;
	*colon = '\0';
	if (colon[1] != '/')
		fail_with(EXIT_BAD_INPUT, "write NAME:/PATH", "'%s' is not an absolute path of VM %s", colon + 1, word);
	return colon + 1;
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* A path that ends with a slash names a directory for a file of this name. */
static const char *complete(const char *path, const char *other)
{
	size_t length = strlen(path);
	static char text[PATH_MAX];
	if (length && path[length - 1] != '/')
		return path;
	if (!*base_of(other))
		fail_with(EXIT_BAD_INPUT, "name a file", "'%s' names no file", other);
	if (snprintf(text, sizeof text, "%s%s", path, base_of(other)) >= (int)sizeof text)
		fail_with(EXIT_BAD_INPUT, NULL, "the path is too long");
	return text;
}

static void check_status(const struct request *r, uint32_t status)
{
	if (status)
		fail(NULL, "VM %s: %s: %s", peer.name, r->path, strerror((int)status));
}

static int copy_in(const char *file, const char *name, const char *path)
{
	struct request r = {.head = {.kind = CONTROL_WRITE, .mode = 0644}, .user = "", .path = complete(path, file)};
	struct stat st;
	int fd = strcmp(file, "-") ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (fd < 0 || fstat(fd, &st) < 0)
		fail_with(EXIT_BAD_INPUT, NULL, "cannot open %s: %s", file, strerror(errno));
	if (S_ISDIR(st.st_mode))
		fail_with(EXIT_BAD_INPUT, "add -r", "%s is a directory", file);
	if (S_ISREG(st.st_mode))
		r.head.mode = st.st_mode & 0777;
	peer_open(&peer, name);
	check_status(&r, session_run(&peer, &r, &(const struct streams){.in = fd, .out = {-1, -1}}));
	return 0;
}

/* A directory of the host that exists is for a file of this name. */
static const char *in_directory(const char *file, const char *path)
{
	struct stat st;
	static char text[PATH_MAX];
	if (!stat(file, &st) && S_ISDIR(st.st_mode) && file[strlen(file) - 1] != '/') {
		snprintf(text, sizeof text, "%s/", file);
		file = text;
	}
	return complete(file, path);
}

struct target {
	const char *path;
	struct streams *streams;
};

/* Only now, so that an existing file stays if there is none in the guest. */
static void open_target(void *context, uint32_t mode)
{
	const struct target *t = context;
	t->streams->out[0] = open(t->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, mode & 0777);
	if (t->streams->out[0] < 0)
		fail(NULL, "cannot create %s: %s", t->path, strerror(errno));
}

static int copy_out(const char *name, const char *path, const char *file)
{
	struct request r = {.head.kind = CONTROL_READ, .user = "", .path = path};
	struct streams streams = {.in = -1, .out = {-1, -1}};
	struct target target = {in_directory(file, path), &streams};
	if (strcmp(file, "-")) {
		streams.started = open_target;
		streams.context = &target;
	} else {
		streams.out[0] = STDOUT_FILENO;
	}
	peer_open(&peer, name);
	check_status(&r, session_run(&peer, &r, &streams));
	if (streams.out[0] != STDOUT_FILENO && close(streams.out[0]) < 0)
		fail(NULL, "cannot write %s: %s", target.path, strerror(errno));
	return 0;
}

int client_cp(char **words)
{
	bool tree = words[0] && !strcmp(words[0], "-r");
	words += tree;
	if (!words[0] || !words[1] || words[2])
		fail_with(EXIT_BAD_INPUT, CP_USAGE, "cp takes two arguments");
	if (!*words[0] || !*words[1])
		fail_with(EXIT_BAD_INPUT, CP_USAGE, "a name is empty");
	const char *from = guest_path(words[0]), *to = guest_path(words[1]);
	if (!from == !to)
		fail_with(EXIT_BAD_INPUT, CP_USAGE, from ? "both files are in VMs" : "no file is in a VM");
	if (tree)
		return to ? tree_in(words[0], words[1], complete(to, words[0])) : tree_out(words[0], from, in_directory(words[1], from));
	return to ? copy_in(words[0], words[1], to) : copy_out(words[0], from, words[1]);
}
