// SPDX-License-Identifier: Apache-2.0
#include "channel.h"

#include "diag.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TURNS 10000 /* of a millisecond, for nabla-run to make the socket */
#define ANSWER_MAX (4 << 20)
#define ANSWER_MS 20000 /* the agent may have to start */

int channel_open(const struct state *state, const char **why)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	/* the path of the state may be too long for an address */
	snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" CHANNEL_DIRECTORY "/" CHANNEL_NAME, state->directory);
	for (int turn = 0; turn < TURNS; turn++) {
		struct pollfd end = {.fd = state->pidfd, .events = POLLIN};
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address))
			return fd;
		int error = errno;
		if (fd >= 0)
			close(fd);
		if (error != ENOENT || (poll(&end, 1, 1) < 0 && errno != EINTR) || end.revents) {
			*why = end.revents ? "it has ended" : strerror(error);
			return -1;
		}
	}
	*why = "its VM does not start";
	return -1;
}

bool channel_start(int fd, const struct control_start *head, const char *words, size_t length)
{
	static uint8_t frame[CONTROL_FRAME_MAX];
	if (length > CONTROL_CONTENT_MAX - CONTROL_START_SIZE)
		return false;
	const struct control_header header = {CONTROL_START_SIZE + (uint32_t)length, CONTROL_START, 0, 0};
	memcpy(frame, &header, CONTROL_HEADER);
	memcpy(frame + CONTROL_HEADER, head, CONTROL_START_SIZE);
	memcpy(frame + CONTROL_HEADER + CONTROL_START_SIZE, words, length);
	length += CONTROL_HEADER + CONTROL_START_SIZE;
	for (size_t at = 0; at < length;) {
		ssize_t sent = send(fd, frame + at, length - at, MSG_NOSIGNAL);
		if (sent <= 0 && errno != EINTR)
			return false;
		at += sent > 0 ? (size_t)sent : 0;
	}
	return true;
}

const char *channel_error(unsigned code)
{
	static const char *const errors[] = {
		[CONTROL_NO_AGENT] = "nothing in the VM answers",
		[CONTROL_BUSY] = "it has as many sessions as a VM can have",
		[CONTROL_PAUSED] = "it is paused",
		[CONTROL_BROKEN] = "its VM did not follow the protocol of the control channel",
		[CONTROL_GONE] = "it has ended",
		[CONTROL_REFUSED] = "nabla-run refused the request",
		[CONTROL_LATE] = "its VM did not answer in time",
	};
	return code < sizeof errors / sizeof *errors && errors[code] ? errors[code] : "nabla-run refused the request";
}

/* A file of limited size: the guest may write without an end. */
static int make_file(void)
{
	int file = memfd_create("answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (file < 0 || ftruncate(file, ANSWER_MAX) < 0 || fcntl(file, F_ADD_SEALS, F_SEAL_GROW) < 0)
		fail(NULL, "cannot make a file in memory: %s", strerror(errno));
	return file;
}

static char *read_back(int file, size_t *length)
{
	off_t size = lseek(file, 0, SEEK_CUR);
	char *text = allocate((size_t)size + 1, 1);
	*length = (size_t)size;
	return pread(file, text, *length, 0) == size ? text : NULL;
}

char *channel_ask(const struct state *state, const char *words, size_t length, size_t *answer, const char **why)
{
	static struct session session;
	const struct control_start head = {.kind = CONTROL_QUESTION};
	enum session_event event = SESSION_LOST;
	uint32_t numbers[2];
	int fd = channel_open(state, why), file = make_file();
	if (fd < 0)
		return NULL;
	session = (struct session){.fd = fd, .in = -1, .out = {file, -1}, .signals = -1, .terminal = -1,
				   .deadline = session_now() + ANSWER_MS};
	if (channel_start(fd, &head, words, length))
		while ((event = session_next(&session, numbers)) == SESSION_STARTED)
			;
	char *text = NULL;
	if (event == SESSION_EXITED && !numbers[0])
		text = read_back(file, answer);
	*why = event == SESSION_REFUSED ? channel_error(numbers[0])
	     : event == SESSION_FAILED	? strerror((int)numbers[1])
	     : event == SESSION_EXITED	? strerror((int)numbers[0])
	     : event == SESSION_UNHEARD ? "its answer is too long"
	     : event == SESSION_LATE	? "its VM did not answer in time"
					: "it has ended";
	close(fd);
	close(file);
	return text;
}
