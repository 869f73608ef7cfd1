// SPDX-License-Identifier: Apache-2.0
#include "broker.h"

#include <string.h>

void broker_init(struct broker *b, const struct broker_texts *texts)
{
	b->texts = texts;
	b->to_guest = (struct broker_queue){.bytes = b->to_guest_bytes, .size = BROKER_TO_GUEST};
	for (int i = 0; i < BROKER_CONNECTIONS; i++)
		b->connections[i].out = (struct broker_queue){.bytes = b->connections[i].out_bytes, .size = BROKER_TO_CLIENT};
}

size_t broker_room(const struct broker_queue *q)
{
	return q->size - (q->end - q->start);
}

bool broker_put(struct broker_queue *q, int type, int stream, int id, const void *content, size_t length)
{
	const struct control_header header = {(uint32_t)length, (uint8_t)type, (uint8_t)stream, (uint16_t)id};
	if (broker_room(q) < CONTROL_HEADER + length)
		return false;
	if (q->size - q->end < CONTROL_HEADER + length) {
		memmove(q->bytes, q->bytes + q->start, q->end - q->start);
		q->end -= q->start;
		q->start = 0;
	}
	memcpy(q->bytes + q->end, &header, CONTROL_HEADER);
	if (length)
		memcpy(q->bytes + q->end + CONTROL_HEADER, content, length);
	q->end += CONTROL_HEADER + length;
	return true;
}

/* --- connections ----------------------------------------------------------------------------------------------------- */

int broker_connect(struct broker *b, uint64_t now)
{
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		struct broker_connection *c = &b->connections[i];
		if (c->state != BROKER_FREE)
			continue;
		c->state = BROKER_NEW;
		c->session = -1;
		c->deadline = now + BROKER_FIRST_MS;
		c->waits = false;
		c->have = c->out.start = c->out.end = 0;
		return i;
	}
	return -1;
}

/* Its requests to the launcher, and its programs in the guest, continue without it. */
static void detach(struct broker *b, int index)
{
	struct broker_connection *c = &b->connections[index];
	for (size_t i = 0; i < b->request_count; i++)
		if (b->requests[i].connection == index)
			b->requests[i].connection = -1;
	if (c->state == BROKER_SESSION)
		broker_session_end(b, c->session);
	c->session = -1;
	c->deadline = 0;
}

void broker_disconnect(struct broker *b, int index)
{
	detach(b, index);
	b->connections[index].state = BROKER_FREE;
}

void broker_fail(struct broker *b, int index, enum control_error error)
{
	struct broker_connection *c = &b->connections[index];
	const uint8_t code = (uint8_t)error;
	detach(b, index);
	c->state = BROKER_LAST;
	/* without room, the closed connection shows the failure */
	broker_put(&c->out, CONTROL_ERROR, 0, 0, &code, sizeof code);
}

/* --- requests -------------------------------------------------------------------------------------------------------- */

static void answer(struct broker_connection *c, const char *first, const char *text, size_t length)
{
	char all[4096];
	size_t head = strlen(first);
	if (length > sizeof all - head)
		length = sizeof all - head;
	memcpy(all, first, head);
	memcpy(all + head, text, length);
	broker_put(&c->out, CONTROL_ANSWER, 0, 0, all, head + length);
}

/* A connection has room for all of it. */
static void answer_logs(struct broker_connection *c, const struct console_log *log)
{
	static uint8_t copy[CONSOLE_LOG];
	size_t length = log ? console_log_copy(log, copy) : 0;
	broker_put(&c->out, CONTROL_ANSWER, 0, 0, &(const uint8_t){log != NULL}, 1);
	for (size_t at = 0; at < length; at += CONTROL_CONTENT_MAX)
		broker_put(&c->out, CONTROL_ANSWER, 0, 0, copy + at,
			   length - at < CONTROL_CONTENT_MAX ? length - at : CONTROL_CONTENT_MAX);
}

static void ask_launcher(struct broker *b, int index, uint8_t what)
{
	struct broker_connection *c = &b->connections[index];
	/* as many as connections: each has at most one; those of closed connections stay in the queue */
	if (b->request_count == BROKER_CONNECTIONS) {
		broker_fail(b, index, CONTROL_BUSY);
		return;
	}
	b->requests[b->request_count].connection = index;
	b->requests[b->request_count].what = what;
	b->requests[b->request_count++].sent = false;
	c->state = BROKER_ASKED;
	c->deadline = 0;
}

/* Returns false if the frame is not a request. */
static bool ask(struct broker *b, int index, const struct control_header *h, const uint8_t *content)
{
	struct broker_connection *c = &b->connections[index];
	const char *text = NULL, *first = "";
	if (h->length != 1 || h->id || h->stream)
		return false;
	switch (content[0]) {
	case CONTROL_ASK_INFO:
		first = b->paused ? "{\"state\":\"paused\"," : "{\"state\":\"running\",";
		text = b->texts->info;
		break;
	case CONTROL_ASK_LINE:
		first = b->paused ? "paused\t" : "running\t";
		text = b->texts->line;
		break;
	case CONTROL_ASK_PORTS:
		text = b->texts->ports;
		break;
	case CONTROL_ASK_LOGS:
		answer_logs(c, b->texts->log);
		c->state = BROKER_LAST;
		c->deadline = 0;
		return true;
	case CONTROL_ASK_STATS:
	case CONTROL_ASK_PAUSE:
	case CONTROL_ASK_RESUME:
	case CONTROL_ASK_STOP:
	case CONTROL_ASK_KILL:
		ask_launcher(b, index, content[0]);
		return true;
	default:
		return false;
	}
	answer(c, first, text, strlen(text));
	c->state = BROKER_LAST;
	c->deadline = 0;
	return true;
}

uint8_t broker_request(struct broker *b)
{
	for (size_t i = 0; i < b->request_count; i++)
		if (!b->requests[i].sent) {
			b->requests[i].sent = true;
			return b->requests[i].what;
		}
	return 0;
}

/* A session that could not be answered gets the full time again. */
static void resume(struct broker *b, uint64_t now)
{
	b->paused = false;
	for (int i = 0; i < CONTROL_SESSIONS; i++) {
		struct broker_session *s = &b->sessions[i];
		if (s->deadline)
			s->deadline = now + BROKER_START_MS;
	}
}

void broker_launcher(struct broker *b, const char *text, size_t length, uint64_t now)
{
	if (!b->request_count || !b->requests[0].sent)
		return;
	int index = b->requests[0].connection;
	uint8_t what = b->requests[0].what;
	memmove(b->requests, b->requests + 1, --b->request_count * sizeof *b->requests);
	if (what == CONTROL_ASK_PAUSE)
		b->paused = true;
	else if (what != CONTROL_ASK_STATS && b->paused)
		resume(b, now);
	if (index < 0)
		return;
	struct broker_connection *c = &b->connections[index];
	answer(c, "", text, length && text[0] == '{' ? length : 0);
	c->state = what == CONTROL_ASK_STOP || what == CONTROL_ASK_KILL ? BROKER_STAYS : BROKER_LAST;
}

/* --- what clients send ----------------------------------------------------------------------------------------------- */

/* A client's frame needs at most this much room in the queue to the guest. */
static bool has_room(const struct broker *b, const struct control_header *h)
{
	return broker_room(&b->to_guest) >= BROKER_RESERVE + CONTROL_HEADER + h->length;
}

enum outcome { DONE, LATER, WRONG };

static enum outcome take_frame(struct broker *b, int index, const struct control_header *h, const uint8_t *content,
			       uint64_t now)
{
	struct broker_connection *c = &b->connections[index];
	switch (c->state) {
	case BROKER_NEW:
		if (h->type == CONTROL_ASK)
			return ask(b, index, h, content) ? DONE : WRONG;
		if (h->type != CONTROL_START || h->id || h->stream)
			return WRONG;
		if (!b->dead && !b->paused && (!b->hello || !has_room(b, h))) {
			if (!c->waits)
				c->deadline = now + BROKER_HELLO_MS;
			c->waits = true;
			return LATER;
		}
		broker_start(b, index, h, content, now);
		return DONE;
	case BROKER_SESSION:
		if (!has_room(b, h))
			return LATER;
		return !h->id && broker_session_frame(b, c->session, h, content) ? DONE : WRONG;
	default:
		return WRONG;
	}
}

void broker_client(struct broker *b, int index, uint64_t now)
{
	struct broker_connection *c = &b->connections[index];
	size_t at = 0;
	while (c->have - at >= CONTROL_HEADER && c->state != BROKER_LAST) {
		struct control_header h;
		memcpy(&h, c->in + at, CONTROL_HEADER);
		enum outcome outcome = WRONG;
		if (h.length <= CONTROL_CONTENT_MAX) {
			if (c->have - at < CONTROL_HEADER + h.length)
				break;
			outcome = take_frame(b, index, &h, c->in + at + CONTROL_HEADER, now);
		}
		if (outcome == LATER)
			break;
		if (outcome == WRONG) {
			broker_fail(b, index, CONTROL_REFUSED);
			return;
		}
		at += CONTROL_HEADER + h.length;
	}
	c->have -= at;
	if (at)
		memmove(c->in, c->in + at, c->have);
}

/* --- time ------------------------------------------------------------------------------------------------------------ */

static bool is_late(uint64_t deadline, uint64_t now, uint64_t *next)
{
	if (!deadline)
		return false;
	if (deadline <= now)
		return true;
	if (deadline < *next)
		*next = deadline;
	return false;
}

int broker_time(struct broker *b, uint64_t now)
{
	uint64_t next = UINT64_MAX;
	for (int i = 0; i < BROKER_CONNECTIONS; i++)
		if (b->connections[i].state == BROKER_NEW && is_late(b->connections[i].deadline, now, &next))
			broker_fail(b, i, !b->connections[i].waits ? CONTROL_REFUSED : b->hello ? CONTROL_LATE : CONTROL_NO_AGENT);
	/* a VM that is stopped, or has no processor, is not broken: only the clients that wait for it are closed */
	for (int i = 0; i < CONTROL_SESSIONS && !b->paused; i++)
		if (b->sessions[i].state == SESSION_STARTING && is_late(b->sessions[i].deadline, now, &next))
			broker_fail(b, b->sessions[i].connection, CONTROL_LATE);
	if (next == UINT64_MAX)
		return -1;
	return next - now > 60000 ? 60000 : (int)(next - now) + 1;
}
