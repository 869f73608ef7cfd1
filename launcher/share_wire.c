// SPDX-License-Identifier: Apache-2.0
#include "share_wire.h"

#include <errno.h>
#include <string.h>

static uint64_t get(struct wire *in, unsigned size)
{
	uint64_t value = 0;
	if (in->end - in->at < size) {
		in->bad = true;
		return 0;
	}
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)in->bytes[in->at + i] << 8 * i;
	in->at += size;
	return value;
}

uint8_t get8(struct wire *in)
{
	return (uint8_t)get(in, 1);
}

uint16_t get16(struct wire *in)
{
	return (uint16_t)get(in, 2);
}

uint32_t get32(struct wire *in)
{
	return (uint32_t)get(in, 4);
}

uint64_t get64(struct wire *in)
{
	return get(in, 8);
}

/* Returns the length of the string at in->at; 0 if the message ends too early. */
static uint16_t get_length(struct wire *in)
{
	uint16_t length = get16(in);
	if (in->end - in->at < length)
		in->bad = true;
	return in->bad ? 0 : length;
}

static bool copy_text(struct wire *in, char *text, uint16_t length, uint16_t most)
{
	const uint8_t *from = in->bytes + in->at;
	in->at += length;
	*text = '\0';
	if (in->bad)
		return false;
	if (length > most) {
		errno = ENAMETOOLONG;
		return false;
	}
	if (memchr(from, '\0', length)) {
		errno = EINVAL;
		return false;
	}
	memcpy(text, from, length);
	text[length] = '\0';
	return true;
}

bool get_text(struct wire *in, char *text)
{
	return copy_text(in, text, get_length(in), WIRE_TEXT_MAX);
}

bool get_name(struct wire *in, char *name)
{
	if (!copy_text(in, name, get_length(in), WIRE_NAME_MAX))
		return false;
	if (*name && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/'))
		return true;
	errno = EINVAL;
	return false;
}

static void put(struct wire *out, uint64_t value, unsigned size)
{
	if (out->end - out->at < size) {
		out->bad = true;
		return;
	}
	for (unsigned i = 0; i < size; i++)
		out->bytes[out->at + i] = (uint8_t)(value >> 8 * i);
	out->at += size;
}

void put8(struct wire *out, uint8_t value)
{
	put(out, value, 1);
}

void put16(struct wire *out, uint16_t value)
{
	put(out, value, 2);
}

void put32(struct wire *out, uint32_t value)
{
	put(out, value, 4);
}

void put64(struct wire *out, uint64_t value)
{
	put(out, value, 8);
}

void put_text(struct wire *out, const char *text, size_t length)
{
	put16(out, (uint16_t)length);
	if (length > UINT16_MAX || out->end - out->at < length) {
		out->bad = true;
		return;
	}
	memcpy(out->bytes + out->at, text, length);
	out->at += (uint32_t)length;
}

void patch32(struct wire *out, uint32_t at, uint32_t value)
{
	for (unsigned i = 0; i < sizeof value; i++)
		out->bytes[at + i] = (uint8_t)(value >> 8 * i);
}

void patch16(struct wire *out, uint32_t at, uint16_t value)
{
	out->bytes[at] = (uint8_t)value;
	out->bytes[at + 1] = (uint8_t)(value >> 8);
}
