// SPDX-License-Identifier: Apache-2.0
// Unix and loopback sockets: streams, datagrams, options, passed descriptors, shutdown, non-blocking connect.
#define _GNU_SOURCE
#include "tap.h"
#include "util.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A listening TCP socket on a free port. */
static int listen_tcp(int *port)
{
	struct sockaddr_in address = loopback(0);
	socklen_t length = sizeof address;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s, (void *)&address, sizeof address) || listen(s, 16) || getsockname(s, (void *)&address, &length))
		return -1;
	*port = ntohs(address.sin_port);
	return s;
}

static int connect_tcp(int port)
{
	struct sockaddr_in address = loopback(port);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(s, (void *)&address, sizeof address) == 0)
		return s;
	int error = errno;
	close(s);
	errno = error;
	return -1;
}

static int pass_descriptor(int over, int descriptor)
{
	char byte = 'd', control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
	return sendmsg(over, &message, 0) == 1;
}

static int take_descriptor(int over)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int descriptor = -1;
	if (recvmsg(over, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&descriptor, CMSG_DATA(c), sizeof(int));
	return descriptor;
}

static void test_unix(void)
{
	int pair[2], pipe_fds[2];
	char text[64] = "";
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
	CHECK(write(pair[0], "there", 5) == 5 && read(pair[1], text, 64) == 5 && write(pair[1], "back", 4) == 4 &&
		      read(pair[0], text, 64) == 4, "both ways");
	if (pipe2(pipe_fds, O_CLOEXEC))
		return;
	CHECK(pass_descriptor(pair[0], pipe_fds[1]), "a descriptor is sent (SCM_RIGHTS)");
	int taken = take_descriptor(pair[1]);
	CHECK(taken >= 0 && taken != pipe_fds[1] && write(taken, "passed", 6) == 6 && read(pipe_fds[0], text, 64) == 6 &&
		      !memcmp(text, "passed", 6), "and works at the other side");
	close(taken);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	struct ucred peer;
	socklen_t length = sizeof peer;
	CHECK(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid == getpid(), "SO_PEERCRED");
	CHECK(shutdown(pair[0], SHUT_WR) == 0 && read(pair[1], text, 64) == 0 && write(pair[1], "x", 1) == 1, "half closed");
	close(pair[0]);
	CHECK(send(pair[1], "x", 1, MSG_NOSIGNAL) == -1 && (errno == EPIPE || errno == ECONNRESET), "closed: EPIPE");
	close(pair[1]);

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && send(pair[0], "one", 3, 0) == 3 &&
		      send(pair[0], "three", 5, 0) == 5 && recv(pair[1], text, 64, 0) == 3 && recv(pair[1], text, 64, 0) == 5,
	      "SOCK_SEQPACKET keeps the borders");
	close(pair[0]);
	close(pair[1]);

	struct sockaddr_un name = {.sun_family = AF_UNIX};
	snprintf(name.sun_path, sizeof name.sun_path, "/tmp/nabla-socket-%d", getpid());
	int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(connect(client, (void *)&name, sizeof name) == -1 && errno == ENOENT, "no such socket: ENOENT");
	CHECK(bind(server, (void *)&name, sizeof name) == 0 && listen(server, 4) == 0 &&
		      connect(client, (void *)&name, sizeof name) == 0, "a named socket");
	int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	CHECK(accepted >= 0 && write(client, "named", 5) == 5 && read(accepted, text, 64) == 5, "carries data");
	close(server);
	close(client);
	close(accepted);
	CHECK(connect(client = socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, sizeof name) == -1 && errno == ECONNREFUSED,
	      "nobody listens any longer: ECONNREFUSED");
	close(client);
	unlink(name.sun_path);
	name.sun_path[0] = 0;
	server = socket(AF_UNIX, SOCK_DGRAM, 0);
	client = socket(AF_UNIX, SOCK_DGRAM, 0);
	length = offsetof(struct sockaddr_un, sun_path) + 12;
	CHECK(bind(server, (void *)&name, length) == 0 && sendto(client, "abstract", 8, 0, (void *)&name, length) == 8 &&
		      recv(server, text, 64, 0) == 8, "an abstract datagram socket");
	close(server);
	close(client);
}

static void *echo(void *listener)
{
	static char block[65536];
	int s = accept((int)(long)listener, NULL, NULL);
	ssize_t n;
	while ((n = read(s, block, sizeof block)) > 0)
		for (ssize_t sent = 0; sent < n;)
			sent += write(s, block + sent, n - sent);
	close(s);
	return NULL;
}

static void *send_all(void *socket)
{
	static unsigned char block[9973];
	for (long sent = 0; sent < 4 << 20;) {
		for (size_t i = 0; i < sizeof block; i++)
			block[i] = (sent + i) * 13 >> 4;
		ssize_t n = write((int)(long)socket, block, sizeof block);
		if (n <= 0)
			break;
		sent += n;
	}
	shutdown((int)(long)socket, SHUT_WR);
	return NULL;
}

static void test_tcp(void)
{
	int port = 0, one = 1;
	pthread_t server, sender;
	int listener = listen_tcp(&port);
	CHECK(listener >= 0 && port > 0, "listen on a free port of 127.0.0.1");
	pthread_create(&server, NULL, echo, (void *)(long)listener);
	int client = connect_tcp(port);
	CHECK(client >= 0, "connect");
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	char text[64] = "";
	CHECK(write(client, "ping", 4) == 4 && read(client, text, 64) == 4 && !strcmp(text, "ping"), "ping");
	struct sockaddr_in address;
	socklen_t length = sizeof address;
	CHECK(getpeername(client, (void *)&address, &length) == 0 && ntohs(address.sin_port) == port, "getpeername");

	pthread_create(&sender, NULL, send_all, (void *)(long)client);
	static unsigned char block[30011];
	long got = 0, wrong = 0;
	ssize_t n;
	while ((n = read(client, block, sizeof block)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			wrong += block[i] != (unsigned char)(((got + i) / 9973 * 9973 + (got + i) % 9973) * 13 >> 4);
		got += n;
	}
	pthread_join(sender, NULL);
	pthread_join(server, NULL);
	CHECK(got >= 4 << 20 && wrong == 0, "4 MB echoed while both sides are busy");
	close(client);
	close(listener);
	CHECK(connect_tcp(port) == -1 && errno == ECONNREFUSED, "nobody listens: ECONNREFUSED");
}

static void test_tcp_details(void)
{
	int port = 0, error = 0, good = 0;
	socklen_t length = sizeof error;
	int listener = listen_tcp(&port);
	struct sockaddr_in address = loopback(port);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int result = connect(client, (void *)&address, sizeof address);
	CHECK(result == 0 || errno == EINPROGRESS, "a non-blocking connect starts");
	struct pollfd p = {client, POLLOUT, 0};
	CHECK(poll(&p, 1, 2000) == 1 && getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0,
	      "and is done when writable");
	int accepted = accept(listener, NULL, NULL);
	CHECK(read(client, (char[1]){0}, 1) == -1 && errno == EAGAIN, "no data: EAGAIN");
	struct timeval timeout = {0, 20000};
	setsockopt(accepted, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	CHECK(read(accepted, (char[1]){0}, 1) == -1 && errno == EAGAIN, "SO_RCVTIMEO");
	struct linger reset = {1, 0};
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(client);
	CHECK(read(accepted, (char[1]){0}, 1) == -1 && errno == ECONNRESET, "a reset connection: ECONNRESET");
	close(accepted);
	for (int i = 0; i < 200; i++) {
		client = connect_tcp(port);
		accepted = accept(listener, NULL, NULL);
		good += write(client, &i, sizeof i) == sizeof i && read(accepted, &error, sizeof error) == sizeof error && error == i;
		close(accepted);
		close(client);
	}
	CHECK(good == 200, "200 connections one after the other");
	int rival = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(bind(rival, (void *)&address, sizeof address) == -1 && errno == EADDRINUSE, "a port in use: EADDRINUSE");
	close(rival);
	close(listener);
}

static void test_udp(void)
{
	struct sockaddr_in address = loopback(0), from;
	socklen_t length = sizeof address;
	char text[2048] = "";
	int server = socket(AF_INET, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
	bind(server, (void *)&address, sizeof address);
	getsockname(server, (void *)&address, &length);
	CHECK(sendto(client, "datagram", 8, 0, (void *)&address, sizeof address) == 8, "UDP: sent");
	length = sizeof from;
	CHECK(recvfrom(server, text, sizeof text, 0, (void *)&from, &length) == 8 && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK),
	      "received, with the sender's address");
	CHECK(sendto(server, "answer", 6, 0, (void *)&from, length) == 6 && recv(client, text, sizeof text, 0) == 6, "answered");
	struct iovec parts[2] = {{"scatter", 7}, {"gather", 6}};
	struct msghdr message = {.msg_name = &address, .msg_namelen = sizeof address, .msg_iov = parts, .msg_iovlen = 2};
	CHECK(sendmsg(client, &message, 0) == 13 && recv(server, text, 5, MSG_TRUNC) == 13, "sendmsg; MSG_TRUNC returns the real size");
	static char big[70000];
	CHECK(sendto(client, big, sizeof big, 0, (void *)&address, sizeof address) == -1 && errno == EMSGSIZE,
	      "too big a datagram: EMSGSIZE");
	close(server);
	close(client);
}

static void test_names(void)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found = NULL;
	CHECK(getaddrinfo("127.0.0.1", "80", &hints, &found) == 0 && found && found->ai_family == AF_INET, "getaddrinfo, numeric");
	if (found)
		freeaddrinfo(found);
	CHECK(socket(AF_INET, SOCK_STREAM, 99) == -1, "a protocol that does not fit is refused");
	CHECK(socket(12345, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT, "an unknown family: EAFNOSUPPORT");
}

int main(void)
{
	test_unix();
	test_tcp();
	test_tcp_details();
	test_udp();
	test_names();
	return tap_done();
}
