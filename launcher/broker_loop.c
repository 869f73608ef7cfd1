// SPDX-License-Identifier: Apache-2.0
#include "broker_loop.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LAST_MS 500 /* for clients to read the remaining data at the end */

enum { LAUNCHER, GUEST, LISTENER, FIRST_CLIENT, COUNT = FIRST_CLIENT + BROKER_CONNECTIONS };

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* Returns false if the other end is gone. */
static bool write_queue(int fd, struct broker_queue *q)
{
	while (q->start < q->end) {
		ssize_t sent = send(fd, q->bytes + q->start, q->end - q->start, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0)
			return would_block();
		q->start += (size_t)sent;
	}
	q->start = q->end = 0;
	return true;
}

static bool read_into(int fd, uint8_t *bytes, size_t size, size_t *have)
{
	if (*have == size)
		return true;
	ssize_t got = recv(fd, bytes + *have, size - *have, MSG_DONTWAIT);
	if (got > 0)
		*have += (size_t)got;
	return got > 0 || (got < 0 && would_block());
}

static void accept_client(struct broker *b, const struct broker_files *f, int fds[BROKER_CONNECTIONS])
{
	struct ucred user;
	socklen_t size = sizeof user;
	int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	/* the permissions of the socket's folder keep other users out */
	bool allowed = !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &size) && (user.uid == f->user || !user.uid);
	int index = allowed ? broker_connect(b, now_ms()) : -1;
	if (index < 0)
		close(fd);
	else
		fds[index] = fd;
}

static void drop(struct broker *b, int fds[BROKER_CONNECTIONS], int i)
{
	close(fds[i]);
	fds[i] = -1;
	broker_disconnect(b, i);
}

/* Returns false if the launcher is gone. */
static bool take_answers(struct broker *b, int launcher)
{
	char text[2048];
	for (;;) {
		ssize_t got = recv(launcher, text, sizeof text, MSG_DONTWAIT);
		if (got < 0 && would_block())
			return true;
		if (got <= 0)
			return false;
		broker_launcher(b, text, (size_t)got, now_ms());
	}
}

/* Returns false if there was nothing to read. */
static bool take_guest(struct broker *b, int guest)
{
	size_t before = b->have;
	bool good = read_into(guest, b->in, sizeof b->in, &b->have), any = b->have > before;
	broker_guest(b);
	if (!good)
		broker_guest_gone(b, CONTROL_GONE);
	return any;
}

/* The guest is gone: its earlier frames still count. */
static void take_last(struct broker *b, int guest)
{
	while (!b->dead && take_guest(b, guest))
		;
	broker_guest_gone(b, CONTROL_GONE);
}

static void serve_clients(struct broker *b, int fds[BROKER_CONNECTIONS], const struct pollfd *events)
{
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		struct broker_connection *c = &b->connections[i];
		if (fds[i] < 0)
			continue;
		bool good = true;
		if (events[i].fd == fds[i] && events[i].revents & (POLLERR | POLLHUP) && !(events[i].revents & POLLIN))
			good = false;
		else if (events[i].fd == fds[i] && events[i].revents & POLLIN && c->state != BROKER_LAST)
			good = read_into(fds[i], c->in, sizeof c->in, &c->have);
		if (good && c->have)
			broker_client(b, i, now_ms());
		if (!good)
			drop(b, fds, i);
	}
}

/* A client's frame that waited for room may fit only now, and no event would report that. */
static void write_guest(struct broker *b, const struct broker_files *f, const int fds[BROKER_CONNECTIONS])
{
	while (!b->dead && b->to_guest.start < b->to_guest.end) {
		if (!write_queue(f->guest, &b->to_guest))
			take_last(b, f->guest);
		if (b->to_guest.start < b->to_guest.end)
			return; /* POLLOUT will follow */
		for (int i = 0; i < BROKER_CONNECTIONS; i++)
			if (fds[i] >= 0 && b->connections[i].have)
				broker_client(b, i, now_ms());
	}
}

static void write_all(struct broker *b, const struct broker_files *f, int fds[BROKER_CONNECTIONS])
{
	uint8_t request;
	write_guest(b, f, fds);
	while ((request = broker_request(b)))
		if (send(f->launcher, &request, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break; /* it is gone: the socket will report that */
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		struct broker_connection *c = &b->connections[i];
		if (fds[i] < 0)
			continue;
		if (!write_queue(fds[i], &c->out) || (c->state == BROKER_LAST && c->out.start == c->out.end))
			drop(b, fds, i);
	}
}

static bool has_free(const struct broker *b)
{
	for (int i = 0; i < BROKER_CONNECTIONS; i++)
		if (b->connections[i].state == BROKER_FREE)
			return true;
	return false;
}

static void prepare(const struct broker *b, const struct broker_files *f, const int fds[BROKER_CONNECTIONS],
		    struct pollfd events[COUNT])
{
	int guest = POLLIN | (b->to_guest.start < b->to_guest.end ? POLLOUT : 0);
	events[LAUNCHER] = (struct pollfd){.fd = f->launcher, .events = POLLIN};
	events[GUEST] = (struct pollfd){.fd = b->dead ? -1 : f->guest, .events = (short)guest};
	events[LISTENER] = (struct pollfd){.fd = has_free(b) ? f->listener : -1, .events = POLLIN};
	for (int i = 0; i < BROKER_CONNECTIONS; i++) {
		const struct broker_connection *c = &b->connections[i];
		bool listens = c->state != BROKER_LAST && c->have < sizeof c->in;
		int wanted = (listens ? POLLIN : 0) | (c->out.start < c->out.end ? POLLOUT : 0);
		events[FIRST_CLIENT + i] = (struct pollfd){.fd = fds[i], .events = (short)wanted};
	}
}

/* The VM has ended: clients that read get their remaining data. */
static void finish(struct broker *b, const struct broker_files *f, int fds[BROKER_CONNECTIONS])
{
	struct pollfd events[BROKER_CONNECTIONS];
	uint64_t end = now_ms() + LAST_MS;
	for (;;) {
		bool waits = false;
		uint64_t now = now_ms();
		write_all(b, f, fds);
		for (int i = 0; i < BROKER_CONNECTIONS; i++) {
			bool has = fds[i] >= 0 && b->connections[i].out.start < b->connections[i].out.end;
			events[i] = (struct pollfd){.fd = has ? fds[i] : -1, .events = POLLOUT};
			waits = waits || has;
		}
		if (!waits || now >= end || (poll(events, BROKER_CONNECTIONS, (int)(end - now)) < 0 && errno != EINTR))
			return;
	}
}

bool broker_loop(struct broker *b, const struct broker_files *f)
{
	struct pollfd events[COUNT];
	int fds[BROKER_CONNECTIONS];
	for (int i = 0; i < BROKER_CONNECTIONS; i++)
		fds[i] = -1;
	for (;;) {
		int timeout = broker_time(b, now_ms());
		write_all(b, f, fds);
		prepare(b, f, fds, events);
		if (poll(events, COUNT, timeout) < 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		if (events[LAUNCHER].revents && !take_answers(b, f->launcher)) {
			take_last(b, f->guest);
			finish(b, f, fds);
			return true;
		}
		if (events[GUEST].revents && !b->dead)
			take_guest(b, f->guest);
		serve_clients(b, fds, events + FIRST_CLIENT);
		if (events[LISTENER].revents)
			accept_client(b, f, fds);
	}
}
