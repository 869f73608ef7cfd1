// SPDX-License-Identifier: Apache-2.0
/*
 * A coverage-guided fuzzer of the broker of named VMs, compiled together with launcher/broker.c and broker_session.c, with
 * sanitizers. A conversation is a sequence of actions of a guest, its clients and the launcher.
 *
 *   control SEED ROUNDS
 *
 * After each event, no queue may exceed its bounds, no session may have more credit than its window, and whatever either side
 * would be sent has to be frames of the protocol. Ends with status 0; a finding ends it by a sanitizer or by abort().
 */
#include "broker.h"
#include "conversations.h"

#include <stdio.h>

#define CLIENTS 4 /* that events name; the others only connect */

enum event { GUEST, CLIENT, CONNECT, DISCONNECT, LAUNCHER, TIME, READ, GONE, EVENTS };

static void put(struct conversation *c, const void *bytes, size_t length)
{
	if (c->size + length > CONVERSATION)
		return;
	memcpy(c->bytes + c->size, bytes, length);
	c->size += (uint32_t)length;
}

/* An event: kind, subject, u16 length, and as many bytes. */
static void put_event(struct conversation *c, enum event kind, uint32_t subject, const void *bytes, uint16_t length)
{
	const uint8_t head[] = {(uint8_t)kind, (uint8_t)subject, (uint8_t)length, (uint8_t)(length >> 8)};
	if (c->size + sizeof head + length > CONVERSATION)
		return;
	put(c, head, sizeof head);
	put(c, bytes, length);
}

/* --- frames ---------------------------------------------------------------------------------------------------------- */

static uint32_t odd_number(void)
{
	static const uint32_t numbers[] = {0, 1, 8, CONTROL_IN_WINDOW / 4, CONTROL_IN_WINDOW, CONTROL_OUT_WINDOW / 4,
					   CONTROL_OUT_WINDOW, 0x7fffffff, 0xffffffff};
	return numbers[draw(sizeof numbers / sizeof *numbers)];
}

static size_t make_frame(uint8_t *at, int type, uint32_t stream, uint32_t id, const void *content, uint32_t length)
{
	const struct control_header h = {length, (uint8_t)type, (uint8_t)stream, (uint16_t)id};
	memcpy(at, &h, sizeof h);
	memcpy(at + sizeof h, content, length);
	return sizeof h + length;
}

static void add_guest(struct conversation *c)
{
	static const uint8_t types[] = {CONTROL_HELLO, CONTROL_STARTED, CONTROL_STARTED, CONTROL_FAILED, CONTROL_DATA,
					CONTROL_DATA, CONTROL_CLOSE, CONTROL_CLOSE, CONTROL_CREDIT, CONTROL_EXIT};
	static const uint8_t zeros[600];
	uint8_t bytes[1024];
	int type = types[draw(sizeof types)];
	uint32_t stream = type == CONTROL_DATA || type == CONTROL_CLOSE ? 1 + draw(2) : 0, id = draw(3);
	uint32_t numbers[2] = {type == CONTROL_HELLO ? CONTROL_VERSION : type == CONTROL_CREDIT ? odd_number() : draw(256), 2};
	uint32_t length = type == CONTROL_DATA ? 1 + draw(500) : type == CONTROL_CLOSE ? 0 : type == CONTROL_FAILED ? 8 : 4;
	size_t size = make_frame(bytes, type, stream, type == CONTROL_HELLO ? 0 : id, type == CONTROL_DATA ? (void *)zeros : numbers,
				 length);
	put_event(c, GUEST, draw(4) ? 0 : draw(64), bytes, (uint16_t)size);
}

static const uint8_t start_request[CONTROL_START_SIZE + 8] = {0, CONTROL_INPUT, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 's', 'h'};

static void add_client(struct conversation *c)
{
	static const uint8_t types[] = {CONTROL_ASK, CONTROL_START, CONTROL_START, CONTROL_DATA, CONTROL_CLOSE, CONTROL_CREDIT,
					CONTROL_SIGNAL, CONTROL_WINDOW};
	uint8_t bytes[1024];
	int type = types[draw(sizeof types)];
	uint32_t number = type == CONTROL_ASK ? 1 + draw(10) : type == CONTROL_CREDIT ? odd_number() : 15;
	uint32_t length = type == CONTROL_CLOSE ? 0 : type == CONTROL_ASK || type == CONTROL_SIGNAL ? 1 : 4;
	const void *content = &number;
	if (type == CONTROL_START || type == CONTROL_DATA) {
		content = start_request;
		length = type == CONTROL_START ? sizeof start_request : 1 + draw(sizeof start_request);
	}
	size_t size = make_frame(bytes, type, type == CONTROL_CREDIT ? 1 + draw(2) : 0, 0, content, length);
	put_event(c, CLIENT, draw(CLIENTS), bytes, (uint16_t)size);
}

/* Fills windows, which small frames would not do. */
static void add_flood(struct conversation *c)
{
	uint8_t flood[] = {(uint8_t)(1 + draw(2)), (uint8_t)draw(3), (uint8_t)(1 + draw(12))};
	put_event(c, draw(2) ? GUEST : CLIENT, 200 + draw(CLIENTS), flood, sizeof flood);
}

static void add_event(struct conversation *c)
{
	switch (draw(12)) {
	case 0: put_event(c, CONNECT, draw(CLIENTS), "", 0); break;
	case 1: put_event(c, draw(4) ? READ : DISCONNECT, draw(CLIENTS + 1), "", 0); break;
	case 2: put_event(c, LAUNCHER, 0, draw(2) ? "." : "{}", draw(2) ? 1 : 2); break;
	case 3: put_event(c, draw(8) ? TIME : GONE, draw(256), "", 0); break;
	case 4: add_flood(c); break;
	case 5: case 6: case 7: add_client(c); break;
	default: add_guest(c);
	}
}

/* --- the broker ------------------------------------------------------------------------------------------------------ */

static struct broker *broker;
static uint64_t now;
static int connections[CLIENTS]; /* -1: none */

/* Reads a queue as far as whole frames go, which must be allowed ones. */
struct reader {
	uint8_t header[CONTROL_HEADER];
	size_t have;
	uint32_t left;
};
static struct reader readers[BROKER_CONNECTIONS + 1];

static void check_frame(const struct control_header *h, bool to_guest)
{
	bool host = h->type == CONTROL_START || h->type == CONTROL_DATA || h->type == CONTROL_CLOSE || h->type == CONTROL_CREDIT ||
		    h->type == CONTROL_SIGNAL || h->type == CONTROL_WINDOW || h->type == CONTROL_HANGUP;
	bool guest = h->type == CONTROL_STARTED || h->type == CONTROL_FAILED || h->type == CONTROL_DATA ||
		     h->type == CONTROL_CLOSE || h->type == CONTROL_CREDIT || h->type == CONTROL_EXIT;
	bool own = h->type == CONTROL_ANSWER || h->type == CONTROL_ERROR;
	if (h->length > CONTROL_CONTENT_MAX || h->stream > 2 || (to_guest ? !host || h->id >= CONTROL_SESSIONS : !(guest || own) || h->id))
		abort();
}

static void read_queue(struct broker_queue *q, struct reader *r, bool to_guest, size_t most)
{
	while (q->start < q->end && most--) {
		uint8_t byte = q->bytes[q->start++];
		struct control_header h;
		if (r->left) {
			r->left--;
			continue;
		}
		r->header[r->have++] = byte;
		if (r->have < CONTROL_HEADER)
			continue;
		memcpy(&h, r->header, sizeof h);
		check_frame(&h, to_guest);
		r->left = h.length;
		r->have = 0;
	}
	if (q->start == q->end)
		q->start = q->end = 0;
}

static void check_queue(const struct broker_queue *q)
{
	if (q->start > q->end || q->end > q->size)
		abort();
}

static void check_window(uint32_t credit, uint32_t sent, uint32_t window)
{
	if (credit > window || sent > window || credit + sent != window)
		abort();
}

static void check_all(void)
{
	check_queue(&broker->to_guest);
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		const struct broker_connection *c = &broker->connections[i];
		check_queue(&c->out);
		if (c->have > sizeof c->in || (c->state == BROKER_SESSION && (c->session < 0 || broker->sessions[c->session].connection != i)))
			abort();
	}
	for (int i = 0; i < CONTROL_SESSIONS; i++) {
		const struct broker_session *s = &broker->sessions[i];
		if (s->state == SESSION_FREE)
			continue;
		check_window(s->in_credit, s->in_sent, CONTROL_IN_WINDOW);
		check_window(s->credit[0], s->sent[0], CONTROL_OUT_WINDOW);
		check_window(s->credit[1], s->sent[1], CONTROL_OUT_WINDOW);
		if (s->connection >= 0 && broker->connections[s->connection].session != i)
			abort();
	}
}

/* As broker_loop.c: bytes come in pieces, and are handled after each. */
static void receive(uint8_t *in, size_t size, size_t *have, const uint8_t *bytes, size_t length)
{
	size_t room = size - *have;
	if (length > room)
		length = room;
	memcpy(in + *have, bytes, length);
	*have += length;
}

static void from_guest(const uint8_t *bytes, size_t length)
{
	if (broker->dead)
		return;
	receive(broker->in, sizeof broker->in, &broker->have, bytes, length);
	broker_guest(broker);
}

static void from_client(int client, const uint8_t *bytes, size_t length)
{
	int i = connections[client % CLIENTS];
	if (i < 0 || broker->connections[i].state == BROKER_LAST)
		return;
	struct broker_connection *c = &broker->connections[i];
	receive(c->in, sizeof c->in, &c->have, bytes, length);
	broker_client(broker, i, now);
}

/* bytes: stream, id, frames of 32 KB */
static void flood(enum event kind, int client, const uint8_t *bytes, size_t length)
{
	static uint8_t frame[CONTROL_HEADER + 32768];
	static const uint8_t zeros[32768];
	size_t size = make_frame(frame, CONTROL_DATA, kind == GUEST && length ? bytes[0] & 3 : 0,
				 kind == GUEST && length > 1 ? bytes[1] : 0, zeros, sizeof zeros - (kind == GUEST ? 8 : 0));
	for (int n = length > 2 ? bytes[2] & 15 : 1; n; n--)
		kind == GUEST ? from_guest(frame, size) : from_client(client, frame, size);
}

static void disconnect(int client)
{
	int i = connections[client];
	if (i < 0)
		return;
	broker_disconnect(broker, i);
	readers[i] = (struct reader){.have = 0};
	connections[client] = -1;
}

static void happen(enum event kind, uint8_t subject, const uint8_t *bytes, size_t length)
{
	int client = subject % CLIENTS;
	switch (kind) {
	case GUEST:
		if (subject >= 200)
			flood(kind, client, bytes, length);
		else
			from_guest(bytes, length);
		break;
	case CLIENT:
		if (subject >= 200)
			flood(kind, client, bytes, length);
		else
			from_client(client, bytes, length);
		break;
	case CONNECT:
		if (connections[client] < 0)
			connections[client] = broker_connect(broker, now);
		break;
	case DISCONNECT:
		disconnect(client);
		break;
	case LAUNCHER:
		broker_request(broker);
		broker_launcher(broker, (const char *)bytes, length, now);
		break;
	case TIME:
		now += (uint64_t)subject * 100;
		broker_time(broker, now);
		break;
	case READ:
		if (subject % (CLIENTS + 1) == CLIENTS)
			read_queue(&broker->to_guest, &readers[BROKER_CONNECTIONS], true, SIZE_MAX);
		else if (connections[client] >= 0)
			read_queue(&broker->connections[connections[client]].out, &readers[connections[client]], false, SIZE_MAX);
		break;
	case GONE:
		if (subject < 16)
			broker_guest_gone(broker, CONTROL_GONE);
		break;
	default:
		break;
	}
	/* data that had no room may fit now */
	for (int i = 0; i < CLIENTS; i++)
		if (connections[i] >= 0 && broker->connections[connections[i]].have)
			broker_client(broker, connections[i], now);
	check_all();
}

/* As new, without the time that its queues would take. */
static void reset(void)
{
	static const struct console_log full = {.written = 3 * CONSOLE_LOG / 2};
	static const struct broker_texts texts = {"\"name\":\"x\"}", "1\timage\tcommand", "80/tcp -> 127.0.0.1:8080\n", &full};
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		struct broker_connection *c = &broker->connections[i];
		memset(c, 0, offsetof(struct broker_connection, in));
		c->have = 0;
	}
	memset(broker->sessions, 0, sizeof broker->sessions);
	memset(&broker->texts, 0, offsetof(struct broker, in) - offsetof(struct broker, texts));
	broker->have = broker->request_count = 0;
	broker_init(broker, &texts);
}

/* Most events need an agent and sessions. */
static void begin(uint32_t stage)
{
	uint8_t bytes[64];
	const uint32_t one = 1;
	if (stage)
		from_guest(bytes, make_frame(bytes, CONTROL_HELLO, 0, 0, &one, sizeof one));
	for (int i = 0; i < 2 && stage > 1; i++) {
		from_client(i, bytes, make_frame(bytes, CONTROL_START, 0, 0, start_request, sizeof start_request));
		if (stage > 2)
			from_guest(bytes, make_frame(bytes, CONTROL_STARTED, 0, (uint32_t)i, &one, sizeof one));
	}
}

static void talk(const struct conversation *c)
{
	reset();
	memset(readers, 0, sizeof readers);
	memset(hits, 0, sizeof hits);
	now = 1000;
	for (int i = 0; i < CLIENTS; i++)
		connections[i] = i < 2 ? broker_connect(broker, now) : -1;
	begin(c->size % 4);
	tracing = true;
	for (uint32_t at = 0; c->size - at >= 4;) {
		const uint8_t *event = c->bytes + at;
		uint32_t length = event[2] | (uint32_t)event[3] << 8;
		if (length > c->size - at - 4)
			length = c->size - at - 4;
		uint8_t *copy = malloc(length + !length);
		memcpy(copy, event + 4, length);
		happen(event[0] % EVENTS, event[1], copy, length);
		free(copy);
		at += 4 + length;
	}
	tracing = false;
	for (int i = 0; i < CLIENTS; i++) {
		if (connections[i] >= 0)
			read_queue(&broker->connections[connections[i]].out, &readers[connections[i]], false, SIZE_MAX);
		disconnect(i);
	}
	read_queue(&broker->to_guest, &readers[BROKER_CONNECTIONS], true, SIZE_MAX);
	check_all();
}

int main(int argc, char **argv)
{
	static struct conversation c;
	if (argc != 3)
		return 2;
	broker = calloc(1, sizeof *broker);
	if (!broker)
		return 2;
	state = strtoull(argv[1], NULL, 10) * 2 + 1;
	for (long round = strtol(argv[2], NULL, 10); round > 0; round--) {
		invent(&c, add_event, 24);
		talk(&c);
		keep_if_new(&c);
	}
	free(broker);
	printf("%zu ways, %zu conversations kept\n", ways(), corpus_size);
	return 0;
}
