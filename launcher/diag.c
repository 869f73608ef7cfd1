// SPDX-License-Identifier: Apache-2.0
#include "diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void (*failure_handler)(void);
static const char *line_end = "\n";
static const char *program = "nabla-run";

void diag_as(const char *name)
{
	program = name;
}

void on_failure(void (*f)(void))
{
	failure_handler = f;
}

void set_raw_line_ends(bool raw)
{
	line_end = raw ? "\r\n" : "\n";
}

/* Messages quote user input, which must neither break the line nor control the terminal. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

/* Writes the line with a single call, so that output of the VM cannot split it. */
static void put_line(const char *hint, const char *format, va_list args)
{
	char message[4096];
	vsnprintf(message, sizeof message, format, args);
	make_printable(message);
	char line[8192];
	int length = hint ? snprintf(line, sizeof line, "%s: %s (%s)%s", program, message, hint, line_end)
			  : snprintf(line, sizeof line, "%s: %s%s", program, message, line_end);
	fwrite(line, 1, (size_t)length, stderr);
}

void fail(const char *hint, const char *format, ...)
{
	va_list args;
	if (failure_handler)
		failure_handler();
	va_start(args, format);
	put_line(hint, format, args);
	va_end(args);
	exit(EXIT_OWN_ERROR);
}

void fail_with(int status, const char *hint, const char *format, ...)
{
	va_list args;
	if (failure_handler)
		failure_handler();
	va_start(args, format);
	put_line(hint, format, args);
	va_end(args);
	exit(status);
}

void note(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	put_line(NULL, format, args);
	va_end(args);
}
