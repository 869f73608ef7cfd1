/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker of the control channel, which forwards frames between clients on a socket and the guest's agent. The guest is
 * hostile, and a client may be broken. The broker never allocates a length that either of them announces: control_wire.h has
 * the bounds. Only broker_loop.c does input and output.
 */
#ifndef NABLA_BROKER_H
#define NABLA_BROKER_H

#include "console_log.h"
#include "control_wire.h"

#include <stdbool.h>
#include <stddef.h>

#define BROKER_CONNECTIONS 48 /* more than sessions, so that a client can always query and stop the VM */
#define BROKER_FIRST_MS 5000  /* for the first request of a client */
#define BROKER_HELLO_MS 10000 /* for the agent to start, or to read, after a request that needs it */
#define BROKER_START_MS 5000  /* for the answer to CONTROL_START */

/* The most that the guest may send to a session before its client has read anything, and a few more frames. */
#define BROKER_TO_CLIENT (2 * CONTROL_OUT_WINDOW + 4096)
#define BROKER_TO_GUEST (2 * CONTROL_FRAME_MAX)
/* Not available to clients' frames, but reserved for the frames that end sessions. */
#define BROKER_RESERVE (CONTROL_SESSIONS * 2 * CONTROL_HEADER)

/* Bytes that wait to be written: [start, end). */
struct broker_queue {
	uint8_t *bytes;
	size_t size, start, end;
};

enum broker_state {
	BROKER_FREE,
	BROKER_NEW,	/* before its first request */
	BROKER_ASKED,	/* the launcher has its request */
	BROKER_SESSION, /* it has a session */
	BROKER_LAST,	/* it is closed when its queue is written */
	BROKER_STAYS,	/* it is closed when the VM ends */
};

struct broker_connection {
	enum broker_state state;
	int session;	   /* with BROKER_SESSION */
	uint64_t deadline; /* ms; 0: none */
	bool waits;	   /* its first request waits for the guest */
	uint8_t in[CONTROL_FRAME_MAX];
	size_t have;
	struct broker_queue out;
	uint8_t out_bytes[BROKER_TO_CLIENT];
};

enum broker_session_state {
	SESSION_FREE,
	SESSION_STARTING, /* no answer yet */
	SESSION_RUNNING,
	SESSION_ENDING, /* its client is gone; the guest's last frame has not arrived, and may take any time */
};

struct broker_session {
	enum broker_session_state state;
	int connection;
	uint64_t deadline;    /* ms, for its start; 0: none */
	uint32_t in_credit;   /* what the client may send */
	uint32_t in_sent;     /* what it has sent and the guest has not yet credited */
	uint32_t credit[2];   /* what the guest may send */
	uint32_t sent[2];     /* what it has sent and the client has not yet credited */
	bool in_closed, closed[2];
};

/* Properties of a VM that do not change. */
struct broker_texts {
	const char *info, *line, *ports;
	const struct console_log *log; /* NULL: nothing is kept */
};

struct broker {
	struct broker_connection connections[BROKER_CONNECTIONS];
	struct broker_session sessions[CONTROL_SESSIONS];
	const struct broker_texts *texts;
	bool hello;		   /* the agent has sent CONTROL_HELLO */
	bool dead;		   /* the guest sends nothing more */
	enum control_error reason; /* why */
	bool paused;
	uint8_t in[CONTROL_FRAME_MAX];
	size_t have;
	struct broker_queue to_guest;
	uint8_t to_guest_bytes[BROKER_TO_GUEST];
	/* requests to the launcher, which it answers in this order */
	struct {
		int connection; /* -1: it is closed */
		uint8_t what;
		bool sent;
	} requests[BROKER_CONNECTIONS];
	size_t request_count;
};

void broker_init(struct broker *broker, const struct broker_texts *texts);

/* Adds a connection; returns its index, or -1 if there are too many. */
int broker_connect(struct broker *broker, uint64_t now_ms);

/* Handles the data of a client, `in`, as far as there is room for the results. */
void broker_client(struct broker *broker, int connection, uint64_t now_ms);

/* The client has closed the connection. */
void broker_disconnect(struct broker *broker, int connection);

/* Handles the guest's data, `in`. */
void broker_guest(struct broker *broker);

/* The guest sends nothing more: all sessions end. */
void broker_guest_gone(struct broker *broker, enum control_error reason);

/* Handles the launcher's answer to the oldest request. A first byte other than a brace means: done. */
void broker_launcher(struct broker *broker, const char *text, size_t length, uint64_t now_ms);

/* The next request that the launcher has not received, 0: none. */
uint8_t broker_request(struct broker *broker);

/* Handles expired deadlines; returns the time in ms until it has to be called again, -1: never. */
int broker_time(struct broker *broker, uint64_t now_ms);

/* --- of broker.c and broker_session.c -------------------------------------------------------------------------------- */

/* Returns false if there is no room. */
bool broker_put(struct broker_queue *queue, int type, int stream, int id, const void *content, size_t length);

size_t broker_room(const struct broker_queue *queue);

/* Ends a connection with this error, and ends its session. */
void broker_fail(struct broker *broker, int connection, enum control_error error);

/* Starts a session from this frame. */
void broker_start(struct broker *broker, int connection, const struct control_header *header, const uint8_t *content,
		  uint64_t now_ms);

/* Handles a client's frame in a session; returns false if the client may not send it. */
bool broker_session_frame(struct broker *broker, int session, const struct control_header *header,
			  const uint8_t *content);

/* The client of a session is gone. */
void broker_session_end(struct broker *broker, int session);

#endif
