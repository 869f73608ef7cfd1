// SPDX-License-Identifier: Apache-2.0
// What the agent does for nabla-oci: programs of exec, and questions.
#include "agent_start.h"
#include "become.h"
#include "processes.h"
#include "program.h"
#include "protocol.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

static pid_t first;

void program_first(pid_t pid)
{
	first = pid;
}

int program_start(const struct control_start *head, char *strings, size_t length, const struct settings *base,
		  const int streams[3], pid_t *pid, uint32_t *stage)
{
	const struct words words = {strings, length};
	(void)base;
	*stage = GUEST_STAGE_WORDS;
	if (head->kind != CONTROL_PROCESS)
		return EINVAL;
	return command_try(&words, streams, head->flags & CONTROL_TERMINAL, pid, stage);
}

int question_answer(char *strings, size_t length, int *out)
{
	const struct words words = {strings, length};
	const char *one = words_find(&words, "kill"), *all = words_find(&words, "killall");
	*out = -1;
	if (words_find(&words, "list"))
		return processes_list(out);
	if (!first || (!one && !all))
		return EINVAL;
	return kill(one ? first : -1, atoi(one ? one : all)) < 0 ? errno : 0;
}
