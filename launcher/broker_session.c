// SPDX-License-Identifier: Apache-2.0
// Sessions: the frames that the guest and the client may send in each.
#include "broker.h"

#include <string.h>

#define IN_QUARTER (CONTROL_IN_WINDOW / 4)
#define OUT_QUARTER (CONTROL_OUT_WINDOW / 4)

static void free_session(struct broker *b, int id)
{
	struct broker_session *s = &b->sessions[id];
	if (s->connection >= 0) {
		b->connections[s->connection].state = BROKER_LAST;
		b->connections[s->connection].session = -1;
	}
	s->state = SESSION_FREE;
	s->connection = -1;
}

void broker_start(struct broker *b, int index, const struct control_header *h, const uint8_t *content,
		  uint64_t now)
{
	int id = 0;
	while (id < CONTROL_SESSIONS && b->sessions[id].state != SESSION_FREE)
		id++;
	if (b->dead || b->paused || id == CONTROL_SESSIONS) {
		broker_fail(b, index, b->dead ? b->reason : b->paused ? CONTROL_PAUSED : CONTROL_BUSY);
		return;
	}
	struct broker_connection *c = &b->connections[index];
	if (h->length < CONTROL_START_SIZE ||
	    !broker_put(&b->to_guest, CONTROL_START, 0, id, content, h->length)) {
		broker_fail(b, index, CONTROL_REFUSED);
		return;
	}
	b->sessions[id] = (struct broker_session){
		.state = SESSION_STARTING,
		.connection = index,
		.deadline = now + BROKER_START_MS,
		.in_credit = CONTROL_IN_WINDOW,
		.credit = {CONTROL_OUT_WINDOW, CONTROL_OUT_WINDOW},
	};
	c->state = BROKER_SESSION;
	c->session = id;
	c->deadline = 0;
}

void broker_session_end(struct broker *b, int id)
{
	struct broker_session *s = &b->sessions[id];
	s->connection = -1;
	if (b->dead) {
		s->state = SESSION_FREE;
		return;
	}
	s->state = SESSION_ENDING;
	s->deadline = 0;
	/* BROKER_RESERVE is for this frame */
	broker_put(&b->to_guest, CONTROL_HANGUP, 0, id, NULL, 0);
}

static uint32_t number_of(const uint8_t *content)
{
	uint32_t number;
	memcpy(&number, content, sizeof number);
	return number;
}

/* Deducts the cost of a data frame. Returns false if there is not enough credit. */
static bool spend(uint32_t *credit, uint32_t *sent, uint32_t length)
{
	uint32_t cost = CONTROL_HEADER + length;
	if (!length || cost > *credit)
		return false;
	*credit -= cost;
	*sent += cost;
	return true;
}

static bool give(uint32_t *credit, uint32_t *sent, uint32_t more, uint32_t least)
{
	if (more < least || more > *sent)
		return false;
	*credit += more;
	*sent -= more;
	return true;
}

/* --- a client's frame ------------------------------------------------------------------------------------------------ */

static bool may_send(struct broker_session *s, const struct control_header *h, const uint8_t *content)
{
	int out = h->stream - 1;
	switch (h->type) {
	case CONTROL_DATA:
		return !h->stream && !s->in_closed && spend(&s->in_credit, &s->in_sent, h->length);
	case CONTROL_CLOSE:
		if (h->stream || h->length || s->in_closed)
			return false;
		s->in_closed = true;
		return true;
	case CONTROL_CREDIT:
		return (out == 0 || out == 1) && h->length == 4 &&
		       give(&s->credit[out], &s->sent[out], number_of(content), OUT_QUARTER);
	case CONTROL_SIGNAL:
		return !h->stream && h->length == 1 && content[0] >= 1 && content[0] <= 64;
	case CONTROL_WINDOW:
		return !h->stream && h->length == 4;
	default:
		return false;
	}
}

bool broker_session_frame(struct broker *b, int id, const struct control_header *h, const uint8_t *content)
{
	return may_send(&b->sessions[id], h, content) &&
	       broker_put(&b->to_guest, h->type, h->stream, id, content, h->length);
}

/* --- a frame of the guest -------------------------------------------------------------------------------------------- */

/* Returns false if the guest may not send it. Sets *over if the session ends with it. */
static bool guest_may_send(struct broker_session *s, const struct control_header *h, const uint8_t *content, bool *over)
{
	int out = h->stream - 1;
	bool running = s->state == SESSION_RUNNING || s->state == SESSION_ENDING;
	switch (h->type) {
	case CONTROL_STARTED:
		if (h->length != 4 || h->stream || (s->state != SESSION_STARTING && s->state != SESSION_ENDING))
			return false;
		if (s->state == SESSION_STARTING) {
			s->state = SESSION_RUNNING;
			s->deadline = 0;
		}
		return true;
	case CONTROL_FAILED:
		*over = true;
		return h->length == 8 && !h->stream && (s->state == SESSION_STARTING || s->state == SESSION_ENDING);
	case CONTROL_DATA:
		return running && (out == 0 || out == 1) && !s->closed[out] &&
		       spend(&s->credit[out], &s->sent[out], h->length);
	case CONTROL_CLOSE:
		if (!running || (out != 0 && out != 1) || h->length || s->closed[out])
			return false;
		s->closed[out] = true;
		return true;
	case CONTROL_CREDIT:
		return running && !h->stream && h->length == 4 &&
		       give(&s->in_credit, &s->in_sent, number_of(content), IN_QUARTER);
	case CONTROL_EXIT:
		*over = true;
		return h->length == 4 && !h->stream &&
		       (s->state == SESSION_ENDING || (s->state == SESSION_RUNNING && s->closed[0] && s->closed[1]));
	default:
		return false;
	}
}

static bool take_guest_frame(struct broker *b, const struct control_header *h, const uint8_t *content)
{
	bool over = false;
	if (h->type == CONTROL_HELLO) {
		if (b->hello || h->id || h->stream || h->length != 4 || number_of(content) != CONTROL_VERSION)
			return false;
		b->hello = true;
		return true;
	}
	if (!b->hello || h->id >= CONTROL_SESSIONS || b->sessions[h->id].state == SESSION_FREE)
		return false;
	struct broker_session *s = &b->sessions[h->id];
	if (!guest_may_send(s, h, content, &over))
		return false;
	int client = s->connection;
	bool full = client >= 0 && !broker_put(&b->connections[client].out, h->type, h->stream, 0, content, h->length);
	if (over)
		free_session(b, h->id);
	/* it grants or uses credit, but never reads */
	if (full)
		broker_fail(b, client, CONTROL_REFUSED);
	return true;
}

void broker_guest(struct broker *b)
{
	size_t at = 0;
	while (!b->dead && b->have - at >= CONTROL_HEADER) {
		struct control_header h;
		memcpy(&h, b->in + at, CONTROL_HEADER);
		if (h.length <= CONTROL_CONTENT_MAX && b->have - at < CONTROL_HEADER + h.length)
			break;
		if (h.length > CONTROL_CONTENT_MAX || !take_guest_frame(b, &h, b->in + at + CONTROL_HEADER)) {
			broker_guest_gone(b, CONTROL_BROKEN);
			return;
		}
		at += CONTROL_HEADER + h.length;
	}
	b->have -= at;
	if (at)
		memmove(b->in, b->in + at, b->have);
}

void broker_guest_gone(struct broker *b, enum control_error reason)
{
	if (b->dead)
		return;
	b->dead = true;
	b->reason = reason;
	b->have = b->to_guest.start = b->to_guest.end = 0;
	for (int i = 0; i < CONTROL_SESSIONS; i++) {
		int connection = b->sessions[i].connection;
		if (b->sessions[i].state != SESSION_FREE && connection >= 0)
			broker_fail(b, connection, reason);
		b->sessions[i].state = SESSION_FREE;
	}
	for (int i = 0; i < BROKER_CONNECTIONS; i++)
		if (b->connections[i].state == BROKER_NEW && b->connections[i].waits)
			broker_fail(b, i, reason);
}
