// SPDX-License-Identifier: Apache-2.0
// nabla-run: opens what the VM may touch, starts the kernel, waits for it, and passes its exit status on.
#include "diag.h"
#include "image.h"
#include "kernel.h"
#include "options.h"
#include "terminal.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* With 0, 1 or 2 closed, the image would get that number and be taken for the console. */
static void open_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
			fail(NULL, "cannot open /dev/null: %s", strerror(errno));
}

/* Prints words such that a shell reads them as they are. */
static void print_quoted(char **words)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:=@%+";
	for (; *words; words++) {
		const char *word = *words;
		if (*word && word[strspn(word, plain)] == '\0') {
			fputs(word, stdout);
		} else {
			putchar('\'');
			for (; *word; word++)
				*word == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*word);
			putchar('\'');
		}
		putchar(words[1] ? ' ' : '\n');
	}
}

int main(int argc, char **argv)
{
	(void)argc;
	struct options options;
	open_standard_descriptors();
	options_parse(&options, argv);
	int image = image_open(options.image, !options.read_only && !options.ephemeral, options.read_only);
	const char *kernel = kernel_find(&options);
	terminal_remember();
	char **words = kernel_arguments(&options, kernel, terminal_present());
	if (options.dry_run) {
		print_quoted(words);
		return 0;
	}
	return vm_run(kernel, words, image);
}
