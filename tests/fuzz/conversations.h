/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations, the inputs of fuzzers whose code talks to a peer. Those that reached new code are kept. */
#ifndef NABLA_CONVERSATIONS_H
#define NABLA_CONVERSATIONS_H

#include "coverage.h"

#include <stdlib.h>
#include <string.h>

#define CORPUS 4096
#define CONVERSATION 4096

struct conversation {
	uint32_t size;
	uint8_t bytes[CONVERSATION];
};

static struct conversation *corpus[CORPUS];
static size_t corpus_size;

static void damage(struct conversation *c)
{
	for (uint32_t count = c->size ? draw(4) : 0; count; count--) {
		uint32_t at = draw(c->size);
		switch (draw(3)) {
		case 0: c->bytes[at] ^= (uint8_t)(1u << draw(8)); break;
		case 1: c->bytes[at] = (uint8_t)draw(256); break;
		case 2: c->bytes[at] = draw(2) ? 0 : 0xff; break;
		}
	}
}

/* Builds a conversation from parts of earlier ones and up to `most` new parts, which add() appends. */
static void invent(struct conversation *c, void (*add)(struct conversation *), uint32_t most)
{
	c->size = 0;
	if (corpus_size && draw(8)) {
		*c = *corpus[draw((uint32_t)corpus_size)];
		/* continue with another one from somewhere */
		if (!draw(4)) {
			const struct conversation *other = corpus[draw((uint32_t)corpus_size)];
			uint32_t cut = c->size ? draw(c->size) : 0, from = other->size ? draw(other->size) : 0;
			uint32_t size = other->size - from;
			if (size > CONVERSATION - cut)
				size = CONVERSATION - cut;
			memcpy(c->bytes + cut, other->bytes + from, size);
			c->size = cut + size;
		}
	}
	for (uint32_t count = draw(most); count; count--)
		add(c);
	if (!draw(2))
		damage(c);
}

/* Keeps the conversation if it was new. */
static void keep_if_new(const struct conversation *c)
{
	if (!is_new() || corpus_size == CORPUS)
		return;
	corpus[corpus_size] = malloc(sizeof *c);
	*corpus[corpus_size++] = *c;
}

/* The number of executed edges. */
static size_t ways(void)
{
	size_t count = 0;
	for (size_t i = 0; i < MAP; i++)
		count += seen[i] > 0;
	return count;
}

#endif
