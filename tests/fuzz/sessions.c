// SPDX-License-Identifier: Apache-2.0
/*
 * A fuzzer of nabla-oci's end of a session that is guided by coverage: it is compiled together with oci/session.c, with
 * sanitizers. A conversation is what a broker may send, which passes on what a guest says.
 *
 *   sessions SEED ROUNDS
 *
 * Each conversation has to end the session, with data for the output only between its start and its end, and no more data sent
 * than there is credit for. Ends with status 0; a finding ends it by a sanitizer or by abort().
 */
#include "conversations.h"
#include "session.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void put_frame(struct conversation *c, int type, uint32_t stream, const void *content, uint32_t length)
{
	const struct control_header h = {length, (uint8_t)type, (uint8_t)stream, 0};
	if (c->size + sizeof h + length > CONVERSATION)
		return;
	memcpy(c->bytes + c->size, &h, sizeof h);
	memcpy(c->bytes + c->size + sizeof h, content, length);
	c->size += (uint32_t)sizeof h + length;
}

static void add_frame(struct conversation *c)
{
	static const uint8_t zeros[900];
	static const uint32_t numbers[][2] = {{0, 0}, {1, 2}, {16, 2}, {17, 13}, {24, 2}, {25, 2}, {0x137f, 0}, {0xffffffff, 0xffffffff},
					      {CONTROL_IN_WINDOW / 4, 0}, {CONTROL_OUT_WINDOW / 4, 0}};
	const uint32_t *number = numbers[draw(sizeof numbers / sizeof *numbers)];
	/* a session that has not begun is soon over */
	if (!c->size && draw(8)) {
		put_frame(c, CONTROL_STARTED, 0, number, 4);
		return;
	}
	switch (draw(10)) {
	case 0: put_frame(c, CONTROL_STARTED, 0, number, 4); break;
	case 1: put_frame(c, CONTROL_FAILED, 0, number, 8); break;
	case 2: put_frame(c, CONTROL_EXIT, 0, number, 4); break;
	case 3: put_frame(c, CONTROL_ERROR, 0, number, 1); break;
	case 4: put_frame(c, CONTROL_CREDIT, 0, number, 4); break;
	case 5: put_frame(c, CONTROL_CLOSE, 1 + draw(2), "", 0); break;
	case 6: put_frame(c, (int)draw(20), draw(4), number, draw(9)); break;
	default: put_frame(c, CONTROL_DATA, draw(8) ? 1 + draw(2) : 0, zeros, 1 + draw(sizeof zeros)); break;
	}
}

/* Frames that the session sent: all are a client's, and data has the credit that the conversation gave at most. */
static void check_sent(int fd, uint64_t credit)
{
	static uint8_t bytes[1 << 20];
	size_t have = 0, at = 0;
	for (ssize_t got; (got = recv(fd, bytes + have, sizeof bytes - have, MSG_DONTWAIT)) > 0;)
		have += (size_t)got;
	while (at < have) {
		struct control_header h;
		if (have - at < sizeof h)
			abort();
		memcpy(&h, bytes + at, sizeof h);
		if (h.length > have - at - sizeof h || h.id)
			abort();
		at += sizeof h + h.length;
		if (h.type == CONTROL_DATA && (h.stream || !h.length || (credit -= sizeof h + h.length) > UINT32_MAX))
			abort();
		if (h.type == CONTROL_CREDIT ? h.length != 4 || h.stream < 1 || h.stream > 2
					     : h.type != CONTROL_DATA && (h.type != CONTROL_CLOSE || h.length))
			abort();
	}
}

static void talk(const struct conversation *c)
{
	static struct session s;
	uint32_t numbers[2];
	int pair[2], input[2], output = open("/dev/null", O_WRONLY | O_CLOEXEC);
	uint8_t data[512] = {0};
	bool started = false;
	uint64_t credit = CONTROL_IN_WINDOW;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe(input) < 0 || output < 0)
		exit(2);
	if (write(input[1], data, sizeof data) < 0 || send(pair[0], c->bytes, c->size, 0) < 0)
		exit(2);
	close(input[1]);
	shutdown(pair[0], SHUT_WR);
	s = (struct session){.fd = pair[1], .in = input[0], .out = {output, draw(2) ? output : -1}, .signals = -1, .terminal = -1};
	memset(hits, 0, sizeof hits);
	tracing = true;
	for (enum session_event event; (event = session_next(&s, numbers)) == SESSION_STARTED; started = true)
		if (started)
			abort();
	tracing = false;
	for (uint32_t at = 0; c->size - at >= CONTROL_HEADER;) {
		struct control_header h;
		uint32_t number = 0;
		memcpy(&h, c->bytes + at, sizeof h);
		at += CONTROL_HEADER;
		if (h.length > c->size - at)
			break;
		memcpy(&number, c->bytes + at, h.length < 4 ? h.length : 4);
		if (h.type == CONTROL_CREDIT)
			credit += number;
		at += h.length;
	}
	if (s.granted > s.spent || s.have > sizeof s.bytes || s.used > s.have)
		abort();
	check_sent(pair[0], credit);
	close(pair[0]);
	close(pair[1]);
	close(input[0]);
	close(output);
}

int main(int argc, char **argv)
{
	static struct conversation c;
	if (argc != 3)
		return 2;
	state = strtoull(argv[1], NULL, 10) * 2 + 1;
	for (long round = strtol(argv[2], NULL, 10); round > 0; round--) {
		invent(&c, add_frame, 12);
		talk(&c);
		keep_if_new(&c);
	}
	printf("%zu ways, %zu conversations kept\n", ways(), corpus_size);
	return 0;
}
