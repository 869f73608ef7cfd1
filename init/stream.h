/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console as two plain streams of bytes, for a launcher without a terminal. The command gets pipes, so it sees an
 * end of file, sees that nobody sits there, and its output arrives as it was written; init copies between pipes and
 * console while it waits.
 */
#ifndef NABLA_STREAM_H
#define NABLA_STREAM_H

#include <signal.h>
#include <stdbool.h>

/* The ends that the command gets as its standard input and output. */
struct stream_ends {
	int input;
	int output;
};

/* Sets the console up as a terminal for a person, or as a transparent line. */
void console_mode(bool terminal);

/* Makes the pipes. Returns false if there are none to be had. */
bool stream_open(struct stream_ends *ends);

/* Closes the command's ends in init, once the command has them. */
void stream_started(const struct stream_ends *ends);

/* Waits with the given signal mask until a signal came or something could be copied; also without an open stream. */
void stream_wait(const sigset_t *mask);

/* Copies what is left of the output; nobody may hold the command's ends any more. */
void stream_drain(void);

#endif
