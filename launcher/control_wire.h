/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of the control channel: between nabla-init, which runs programs in the guest, the broker of nabla-run, and
 * the broker's clients. init/ and launcher/ have identical copies of this file.
 *
 * A frame is a header and `length` bytes; all numbers are little-endian. Only the host chooses an id; between broker and
 * client, it is 0 in every frame. A sender needs credit for a whole data frame, header included.
 */
#ifndef NABLA_CONTROL_WIRE_H
#define NABLA_CONTROL_WIRE_H

#include <stdint.h>

#define CONTROL_VERSION 1
#define CONTROL_SESSIONS 32
#define CONTROL_CONTENT_MAX 65536
#define CONTROL_OUT_WINDOW (256u << 10) /* credit at the start of a session: for standard output and error, each */
#define CONTROL_IN_WINDOW (64u << 10) /* for standard input */

struct control_header {
	uint32_t length; /* of the content */
	uint8_t type;
	uint8_t stream; /* 0: standard input, 1: output, 2: error; 0 in frames that concern no stream */
	uint16_t id;	/* of the session */
};

#define CONTROL_HEADER 8u
#define CONTROL_FRAME_MAX (CONTROL_HEADER + CONTROL_CONTENT_MAX)

enum control_type {
	CONTROL_HELLO = 1, /* guest: u32 version */
	CONTROL_START,	   /* host: struct control_start and strings */
	CONTROL_STARTED,   /* guest: u32 the process, or the mode of the file */
	CONTROL_FAILED,	   /* guest: u32 enum control_stage, u32 error number; the session is over */
	CONTROL_DATA,	   /* both: bytes, at least one */
	CONTROL_CLOSE,	   /* both: the stream has ended */
	CONTROL_CREDIT,	   /* both: u32 more bytes, at least a quarter of the window */
	CONTROL_SIGNAL,	   /* host: u8 number, for the process and its group */
	CONTROL_WINDOW,	   /* host: u16 rows, u16 columns */
	CONTROL_EXIT,	   /* guest: u32 wait status, or error number of a file; after CLOSE of 1 and 2; the session is over */
	CONTROL_HANGUP,	   /* host: the client is gone; the answer is EXIT */
	/* broker and client only */
	CONTROL_ASK,	/* client: u8 enum control_request */
	CONTROL_ANSWER, /* broker: text */
	CONTROL_ERROR,	/* broker: u8 enum control_error; the connection is over */
};

enum control_kind {
	CONTROL_EXEC,
	CONTROL_READ,  /* a regular file, as stream 1 */
	CONTROL_WRITE, /* a regular file, from stream 0; an existing one is replaced */
	/* of containers: the words of oci/guest/protocol.h follow instead of strings */
	CONTROL_PROCESS,
	CONTROL_QUESTION, /* the answer is stream 1 */
};

#define CONTROL_TERMINAL 1
#define CONTROL_INPUT 2 /* otherwise standard input is empty */
/* signals are for the program alone, and CONTROL_HANGUP is SIGKILL for its group, not SIGHUP */
#define CONTROL_ENGINE 4

/* Strings follow, each NUL-terminated: user ("": root), working directory ("": /) or file, arguments, variables. */
struct control_start {
	uint8_t kind;
	uint8_t flags;
	uint16_t rows, columns; /* of the terminal; 0: unknown */
	uint16_t arguments;
	uint16_t variables;
	uint16_t mode; /* of the file */
};

#define CONTROL_START_SIZE 12u

/* The stage that failed. */
enum control_stage {
	CONTROL_STAGE_RESOURCES = 1,
	CONTROL_STAGE_USER,
	CONTROL_STAGE_DIRECTORY,
	CONTROL_STAGE_PROGRAM,
	CONTROL_STAGE_FILE,
};

enum control_request {
	CONTROL_ASK_INFO = 1, /* JSON */
	CONTROL_ASK_LINE,     /* state, process, image and command, separated by tabs */
	CONTROL_ASK_PORTS,    /* one line each */
	CONTROL_ASK_STATS,    /* JSON */
	CONTROL_ASK_PAUSE,
	CONTROL_ASK_RESUME,
	CONTROL_ASK_STOP, /* this and the next: the connection ends with the VM */
	CONTROL_ASK_KILL,
	CONTROL_ASK_LOGS, /* u8: 1 if output is kept, then what is kept, in several answers */
};

enum control_error {
	CONTROL_NO_AGENT = 1, /* no agent answers in the guest */
	CONTROL_BUSY,	      /* too many sessions */
	CONTROL_PAUSED,
	CONTROL_BROKEN, /* the guest did not follow the protocol */
	CONTROL_GONE,	/* the guest has ended */
	CONTROL_REFUSED, /* the client did not follow the protocol */
	CONTROL_LATE,	 /* the guest did not answer in time */
};

#endif
