// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include "control_folder.h"
#include "diag.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void peer_open(struct peer *p, const char *name)
{
	const char *why = NULL;
	int folder;
	if (!control_name_is_valid(name))
		fail_with(EXIT_BAD_INPUT, "nabla ps lists the names", "'%s' is not the name of a VM", name);
	folder = control_folder(false, &why);
	if (folder < 0 && why)
		fail(NULL, "cannot open the folder of sockets: %s", why);
	enum control_found found = folder < 0 ? CONTROL_FOUND_NONE : control_connect(folder, name, &p->fd);
	if (folder >= 0)
		close(folder);
	if (found == CONTROL_FOUND_ERROR)
		fail(NULL, "cannot reach VM %s: %s", name, strerror(errno));
	if (found != CONTROL_FOUND)
		fail("list running VMs: nabla ps; start one: nabla-run --name NAME", "this user has no running VM named %s", name);
	p->name = name;
	p->have = p->used = 0;
}

bool peer_send(struct peer *p, enum control_type type, int stream, const void *content, size_t length)
{
	static uint8_t frame[CONTROL_FRAME_MAX];
	const struct control_header header = {(uint32_t)length, (uint8_t)type, (uint8_t)stream, 0};
	memcpy(frame, &header, CONTROL_HEADER);
	if (length)
		memcpy(frame + CONTROL_HEADER, content, length);
	for (size_t at = 0; at < CONTROL_HEADER + length;) {
		ssize_t sent = write(p->fd, frame + at, CONTROL_HEADER + length - at);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		at += (size_t)sent;
	}
	return true;
}

bool peer_has_frame(const struct peer *p)
{
	struct control_header h;
	if (p->have - p->used < CONTROL_HEADER)
		return false;
	memcpy(&h, p->in + p->used, CONTROL_HEADER);
	return p->have - p->used >= CONTROL_HEADER + h.length;
}

static _Noreturn void fail_as_told(const struct peer *p, uint8_t error)
{
	switch (error) {
	case CONTROL_NO_AGENT:
		fail("its first program must be nabla-init, and must have started", "nothing answers in VM %s", p->name);
	case CONTROL_BUSY:
		fail("wait until a session of this VM ends", "VM %s has %d sessions, and cannot have more", p->name,
		     CONTROL_SESSIONS);
	case CONTROL_PAUSED:
		fail("resume it: nabla resume NAME", "VM %s is paused", p->name);
	case CONTROL_BROKEN:
		fail("only nabla stop and kill reach it now", "VM %s did not follow the protocol of its control channel", p->name);
	case CONTROL_LATE:
		fail("see whether it uses the processor: nabla stats NAME", "VM %s did not answer in time", p->name);
	case CONTROL_GONE:
		fail(NULL, "VM %s has ended", p->name);
	default:
		fail("use nabla and nabla-run of the same release", "the broker of VM %s refused the request", p->name);
	}
}

const uint8_t *peer_receive(struct peer *p, struct control_header *h)
{
	while (!peer_has_frame(p)) {
		memmove(p->in, p->in + p->used, p->have - p->used);
		p->have -= p->used;
		p->used = 0;
		ssize_t got = read(p->fd, p->in + p->have, sizeof p->in - p->have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return NULL;
		p->have += (size_t)got;
	}
	memcpy(h, p->in + p->used, CONTROL_HEADER);
	const uint8_t *content = p->in + p->used + CONTROL_HEADER;
	p->used += CONTROL_HEADER + h->length;
	if (h->type == CONTROL_ERROR)
		fail_as_told(p, h->length ? content[0] : 0);
	return content;
}
