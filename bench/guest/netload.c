// SPDX-License-Identifier: Apache-2.0
// Both ends of the network measurements; the same binary runs in the guest and on the host.
//
// netload serve PORT a web server with one thread: GET /N returns N bytes, PUT discards its body; until killed
//   netload load PORT CONNECTIONS SECONDS BYTES   requests per second of GET /BYTES, on connections that stay open
//   netload get PORT BYTES          bytes per second of one GET
//   netload put PORT BYTES          bytes per second of one PUT
//
// Clients connect to 127.0.0.1 and print one JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 << 10, HEAD = 1024, CONNECTIONS = 4096, EVENTS = 256 };

static char chunk[CHUNK];

/* A connection, of either side. */
static struct connection {
	char head[HEAD];    /* the part of a request or response head read so far */
	size_t head_length;
	long long to_read;  /* bytes of the body still to be received; -1: the head is incomplete */
	long long to_write; /* bytes of the own body still to be sent */
	char answer[128];
	size_t answer_length, answer_done;
} connections[CONNECTIONS];

static void must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in at(const char *port, in_addr_t address)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(atoi(port)),
		.sin_addr.s_addr = htonl(address),
	};
}

static void set_body(struct connection *c, long long length)
{
	c->answer_length = sprintf(c->answer, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", length);
	c->answer_done = 0;
	c->to_write = length;
}

/* Sends as much of head and body as the socket accepts. Returns false if the connection must be closed. */
static bool push(int fd, struct connection *c)
{
	while (c->answer_done < c->answer_length || c->to_write) {
		ssize_t n;
		if (c->answer_done < c->answer_length) {
			n = send(fd, c->answer + c->answer_done, c->answer_length - c->answer_done,
				 MSG_NOSIGNAL | (c->to_write ? MSG_MORE : 0));
			if (n > 0)
				c->answer_done += n;
		} else {
			n = send(fd, chunk, c->to_write < CHUNK ? c->to_write : CHUNK, MSG_NOSIGNAL);
			if (n > 0)
				c->to_write -= n;
		}
		if (n < 0)
			return errno == EAGAIN;
	}
	return true;
}

/* Reads the available data; returns true when a head and its body are complete. *open: the other end is connected. */
static bool pull(int fd, struct connection *c, bool *open)
{
	for (;;) {
		ssize_t n;
		*open = true;
		if (c->to_read < 0)
			n = recv(fd, c->head + c->head_length, HEAD - 1 - c->head_length, 0);
		else
			n = recv(fd, chunk, c->to_read < CHUNK ? c->to_read : CHUNK, 0);
		if (n <= 0) {
			*open = n < 0 && errno == EAGAIN;
			return false;
		}
		if (c->to_read < 0) {
			c->head_length += n;
			c->head[c->head_length] = '\0';
			char *end = strstr(c->head, "\r\n\r\n"), *length = strcasestr(c->head, "content-length:");
			if (!end)
				continue;
			c->to_read = length && length < end ? atoll(length + 15) : 0;
			c->to_read -= c->head + c->head_length - (end + 4);
		} else {
			c->to_read -= n;
		}
		if (c->to_read <= 0)
			return true;
	}
}

static void begin(struct connection *c)
{
	c->head_length = 0;
	c->to_read = -1;
}

static void watch(int epoll, int fd, int operation, unsigned events)
{
	must(fd < CONNECTIONS && !epoll_ctl(epoll, operation, fd, &(struct epoll_event){events, {.fd = fd}}), "epoll");
}

static void serve_one(int epoll, int fd)
{
	struct connection *c = &connections[fd];
	bool open, waited = c->to_write;
	if (!push(fd, c))
		goto end;
	while (!c->to_write && pull(fd, c, &open)) {
		set_body(c, !strncmp(c->head, "GET /", 5) ? atoll(c->head + 5) : 0);
		begin(c);
		if (!push(fd, c))
			goto end;
	}
	if (!c->to_write && !open)
		goto end;
	if (waited != (c->to_write > 0))
		watch(epoll, fd, EPOLL_CTL_MOD, c->to_write ? EPOLLOUT : EPOLLIN);
	return;
end:
	close(fd);
}

static void serve(const char *port)
{
	struct sockaddr_in address = at(port, INADDR_ANY);
	struct epoll_event events[EVENTS];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	must(!bind(listener, (struct sockaddr *)&address, sizeof address) && !listen(listener, 512), "listen");
	watch(epoll, listener, EPOLL_CTL_ADD, EPOLLIN);
	puts("serving");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			if (events[i].data.fd != listener) {
				serve_one(epoll, events[i].data.fd);
				continue;
			}
			int fd;
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
				connections[fd] = (struct connection){.to_read = -1};
				watch(epoll, fd, EPOLL_CTL_ADD, EPOLLIN);
			}
		}
	}
}

static int connect_to(const char *port)
{
	struct sockaddr_in address = at(port, INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	must(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address), "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	connections[fd] = (struct connection){.to_read = -1};
	return fd;
}

static void send_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
		must(n > 0, "send");
		text += n;
		length -= n;
	}
}

static void load(const char *port, int count, double seconds, const char *bytes)
{
	struct epoll_event events[EVENTS];
	char request[128];
	int length = sprintf(request, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", bytes), epoll = epoll_create1(0);
	long long requests = 0;
	double began = now(), took;
	for (int i = 0; i < count; i++) {
		int fd = connect_to(port);
		watch(epoll, fd, EPOLL_CTL_ADD, EPOLLIN);
		send_all(fd, request, length);
	}
	while ((took = now() - began) < seconds) {
		int ready = epoll_wait(epoll, events, EVENTS, 100);
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			/* One read returns an answer or a part of it; the descriptor blocks, so the data is not read
			 * twice. */
			struct connection *c = &connections[fd];
			ssize_t n = recv(fd, c->to_read < 0 ? c->head + c->head_length : chunk,
					 c->to_read < 0 ? HEAD - 1 - c->head_length : CHUNK, 0);
			must(n > 0, "receive");
			if (c->to_read < 0) {
				c->head_length += n;
				c->head[c->head_length] = '\0';
				char *end = strstr(c->head, "\r\n\r\n");
				if (!end)
					continue;
				c->to_read = atoll(bytes) - (c->head + c->head_length - (end + 4));
			} else {
				c->to_read -= n;
			}
			if (c->to_read > 0)
				continue;
			requests++;
			begin(c);
			send_all(fd, request, length);
		}
	}
	printf("{\"requests\": %lld, \"seconds\": %.3f, \"per_second\": %.0f}\n", requests, took, requests / took);
}

static void transfer(const char *port, bool put, long long bytes)
{
	char request[128];
	int fd = connect_to(port);
	bool open;
	int length = put ? sprintf(request, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %lld\r\n\r\n", bytes)
			 : sprintf(request, "GET /%lld HTTP/1.1\r\nHost: x\r\n\r\n", bytes);
	double began = now();
	send_all(fd, request, length);
	for (long long left = put ? bytes : 0; left > 0; left -= CHUNK)
		send_all(fd, chunk, left < CHUNK ? left : CHUNK);
	must(pull(fd, &connections[fd], &open), "receive");
	double took = now() - began;
	printf("{\"bytes\": %lld, \"seconds\": %.3f, \"per_second\": %.0f}\n", bytes, took, bytes / took);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	else if (argc == 6 && !strcmp(argv[1], "load"))
		load(argv[2], atoi(argv[3]), atof(argv[4]), argv[5]);
	else if (argc == 4 && (!strcmp(argv[1], "get") || !strcmp(argv[1], "put")))
		transfer(argv[2], argv[1][0] == 'p', atoll(argv[3]));
	else
		return 2;
	return 0;
}
