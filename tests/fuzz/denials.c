// SPDX-License-Identifier: Apache-2.0
/*
 * A fuzzer of what reads the log of denied packets, guided by coverage. It is compiled together with launcher/denials_read.c,
 * with sanitizers and -fsanitize-coverage=trace-pc. A conversation is what one read of the log returns: messages, of which a
 * guest determines the packets.
 *
 *   denials SEED ROUNDS
 *
 * Ends with status 0; a finding ends it by a sanitizer or by abort(). Prints how many places of the code were reached.
 */
#include "conversations.h"
#include "denials.h"

#include <ctype.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <stdio.h>

static size_t reported;

/* A report is one line for a terminal. */
static void check(const char *text)
{
	size_t length = strnlen(text, DENIALS_TEXT);
	if (!length || length == DENIALS_TEXT)
		abort();
	for (size_t i = 0; i < length; i++)
		if (!isprint((unsigned char)text[i]))
			abort();
	reported++;
}

/* Writes a packet of `size` bytes, most often one with a plausible header. */
static void put_packet(uint8_t *at, uint32_t size)
{
	static const uint8_t protocols[] = {1, 6, 17, 58, 132, 0};
	for (uint32_t i = 0; i < size; i++)
		at[i] = (uint8_t)draw(256);
	if (!size || !draw(8))
		return;
	at[0] = draw(2) ? (uint8_t)(0x40 | draw(16)) : 0x60;
	if (size > 9)
		at[at[0] >> 4 == 6 ? 6 : 9] = protocols[draw(sizeof protocols)];
}

/* Appends a message with some attributes. */
static void add_message(struct conversation *c)
{
	uint8_t bytes[512] = {0};
	uint32_t size = NLMSG_HDRLEN + sizeof(struct nfgenmsg);
	for (uint32_t count = draw(4); count; count--) {
		struct nlattr attribute = {.nla_type = (uint16_t)(draw(3) ? NFULA_PAYLOAD : draw(20))};
		uint32_t length = draw(72);
		attribute.nla_len = (uint16_t)(draw(16) ? sizeof attribute + length : draw(65536));
		memcpy(bytes + size, &attribute, sizeof attribute);
		put_packet(bytes + size + sizeof attribute, length);
		size += (uint32_t)(sizeof attribute + length + 3) & ~3u;
	}
	struct nlmsghdr header = {
		.nlmsg_len = draw(16) ? size : draw(1000),
		.nlmsg_type = (uint16_t)(draw(8) ? DENIALS_TYPE(NFULNL_MSG_PACKET) : draw(65536)),
	};
	memcpy(bytes, &header, sizeof header);
	if (c->size + size > CONVERSATION)
		return;
	memcpy(c->bytes + c->size, bytes, size);
	c->size += size;
}

int main(int argc, char **argv)
{
	static struct conversation c;
	if (argc != 3)
		return 2;
	state = strtoull(argv[1], NULL, 10);
	for (unsigned long round = strtoul(argv[2], NULL, 10); round; round--) {
		invent(&c, add_message, 4);
		/* of its exact size: a read beyond it is an error */
		uint8_t *copy = malloc(c.size ? c.size : 1);
		memcpy(copy, c.bytes, c.size);
		memset(hits, 0, sizeof hits);
		tracing = true;
		denials_read(copy, c.size, check);
		tracing = false;
		free(copy);
		keep_if_new(&c);
	}
	printf("%zu places, %zu conversations, %zu reports\n", ways(), corpus_size, reported);
	return reported ? 0 : 1;
}
