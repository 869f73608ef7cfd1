/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of 9P messages, little-endian. A message that ends too early sets `bad` and yields zeros; an answer that would
 * exceed its buffer does the same. Callers therefore check only once, after all fields.
 */
#ifndef NABLA_SHARE_WIRE_H
#define NABLA_SHARE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HEADER 7 /* size, type, tag */
#define WIRE_NAME_MAX 255
#define WIRE_TEXT_MAX 4095 /* of a symbolic link */

/* A message to read, or an answer to write. */
struct wire {
	uint8_t *bytes;
	uint32_t at, end;
	bool bad;
};

uint8_t get8(struct wire *in);
uint16_t get16(struct wire *in);
uint32_t get32(struct wire *in);
uint64_t get64(struct wire *in);

/* Copies a string of at most WIRE_TEXT_MAX bytes without NUL to text[WIRE_TEXT_MAX + 1]. */
bool get_text(struct wire *in, char *text);

/*
 * The same for the name of a file: text[WIRE_NAME_MAX + 1]. Returns false with errno set if it is not a single name: empty,
 * `.`, `..`, with a slash, or too long.
 */
bool get_name(struct wire *in, char *name);

void put8(struct wire *out, uint8_t value);
void put16(struct wire *out, uint16_t value);
void put32(struct wire *out, uint32_t value);
void put64(struct wire *out, uint64_t value);
void put_text(struct wire *out, const char *text, size_t length);

/* Writes to a position that was left free before. */
void patch32(struct wire *out, uint32_t at, uint32_t value);
void patch16(struct wire *out, uint32_t at, uint16_t value);

#endif
