// SPDX-License-Identifier: Apache-2.0
#include "vm.h"

#include "diag.h"
#include "report.h"
#include "signals.h"
#include "start.h"
#include "status.h"
#include "terminal.h"
#include "trace.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS_NS UINT64_C(1000000)
#define GRACE_NS (8000 * MS_NS) /* from the request to shut down to SIGKILL; init gives services 5 s of it */
#define STATS_NS (250 * MS_NS)
#define HELPER_NS (500 * MS_NS) /* a VM closes its network some time before it can be reaped */
#define FIRST_STATS_NS (20 * MS_NS) /* after a typical boot */
#define DRAIN_NS (500 * MS_NS) /* for the reader of the output of a VM that had to be stopped */
#define MEMORY_NS (20 * MS_NS) /* between two checks of --max-cow */
#define REQUESTS 48 /* of the broker, before timers and signals are looked at again */
#define NEVER UINT64_MAX
#define FIRST_OUTPUT 2 /* of the events, after signals and the broker */

struct watch {
	struct vm *vm;
	pid_t pid;
	int signals;	 /* a signalfd, which is only polled */
	sigset_t handled;
	bool paused;	 /* by nabla pause */
	int stop_signal; /* the first signal that asked the launcher to end; 0: none */
	bool timed_out, memory_exceeded, cpu_time_used_up;
	uint64_t kill_at, timeout_at, stats_at, helper_gone_at, memory_at, cpu_time_at; /* CLOCK_MONOTONIC, ns */
	int status; /* of wait(2) */
	struct rusage usage;
};

static void update_window(const struct watch *w)
{
	status_set_window(w->vm->terminal);
	kill(w->pid, SIGWINCH);
}

/* Like any job of a shell: the terminal is in its original mode while the launcher is stopped. */
static void stop_and_continue(const struct watch *w)
{
	terminal_restore();
	kill(w->pid, SIGSTOP);
	signals_stop();
	terminal_raw();
	if (!w->paused)
		kill(w->pid, SIGCONT);
	update_window(w); /* the size may have changed */
}

static void request_shutdown(struct watch *w)
{
	bool again = w->kill_at != NEVER;
	w->paused = false;
	kill(w->pid, SIGCONT);
	/*
	 * Once a guest program runs, SIGTERM is the power button. Before that, SIGTERM kills the VM by default, except in
	 * a jail: there the VM is process 1, which ignores signals without a handler. A second request kills the VM.
	 */
	bool ignores_term = w->vm->options->jail && !status_user_started();
	kill(w->pid, again || ignores_term ? SIGKILL : SIGTERM);
	if (!again)
		w->kill_at = now_ns() + GRACE_NS;
}

static void on_signal(struct watch *w, int number)
{
	switch (number) {
	case SIGCHLD:
		break;
	case SIGWINCH:
		update_window(w);
		break;
	case SIGTSTP:
		stop_and_continue(w);
		break;
	default:
		if (!w->stop_signal)
			w->stop_signal = number;
		request_shutdown(w);
	}
}

/* A single-threaded process cannot use up the rest of its processor time before this much real time has passed. */
static void check_cpu_time(struct watch *w, uint64_t now)
{
	clockid_t clock;
	struct timespec t;
	uint64_t limit = w->vm->options->cpu_time_ns;
	w->cpu_time_at = NEVER;
	if (clock_getcpuclockid(w->pid, &clock) || clock_gettime(clock, &t) < 0)
		return; /* the VM has ended */
	uint64_t used = (uint64_t)t.tv_sec * (1000 * MS_NS) + (uint64_t)t.tv_nsec;
	if (used < limit) {
		w->cpu_time_at = now + (limit - used < MS_NS ? MS_NS : limit - used);
		return;
	}
	w->cpu_time_used_up = true;
	kill(w->pid, SIGKILL);
}

static void on_time(struct watch *w)
{
	uint64_t now = now_ns();
	if (now >= w->kill_at) {
		kill(w->pid, SIGKILL);
		w->kill_at = NEVER;
	}
	if (now >= w->timeout_at) {
		w->timed_out = !w->stop_signal;
		w->timeout_at = NEVER;
		request_shutdown(w);
	}
	if (now >= w->stats_at) {
		int rc = report_running(w->vm->stats_fd, w->vm->started_ns);
		w->stats_at = rc < 0 ? NEVER : now + STATS_NS;
	}
	if (now >= w->cpu_time_at)
		check_cpu_time(w, now);
	if (now >= w->memory_at) {
		w->memory_at = now + MEMORY_NS;
		if (memory_watch_exceeded(&w->vm->memory)) {
			w->memory_exceeded = true;
			w->memory_at = NEVER;
			kill(w->pid, SIGKILL);
		}
	}
	if (now >= w->helper_gone_at) {
		w->helper_gone_at = NEVER;
		note("warning: the network helper has exited; the VM continues without a network");
	}
}

static uint64_t next_timer(const struct watch *w)
{
	const uint64_t timers[] = {w->kill_at, w->timeout_at, w->stats_at, w->helper_gone_at, w->memory_at,
				   w->cpu_time_at};
	uint64_t next = NEVER;
	for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
		if (timers[i] < next)
			next = timers[i];
	return next;
}

/* Waits for a signal, output of the VM or a timer. Handles the output; returns the signal, or 0. */
static int wait_for_event(const struct watch *w)
{
	struct output *output = &w->vm->output;
	struct pollfd events[FIRST_OUTPUT + OUTPUT_STREAMS] = {{.fd = w->signals, .events = POLLIN},
							       {.fd = w->vm->control.link, .events = POLLIN}};
	nfds_t count = output->active ? FIRST_OUTPUT + OUTPUT_STREAMS : FIRST_OUTPUT;
	uint64_t next = next_timer(w), now = now_ns(), left = next > now ? next - now : 0;
	struct timespec timeout = {(time_t)(left / (1000 * MS_NS)), (long)(left % (1000 * MS_NS))};
	output_prepare(output, events + FIRST_OUTPUT);
	if (ppoll(events, count, next == NEVER ? NULL : &timeout, NULL) > 0)
		output_handle(output, events + FIRST_OUTPUT);
	return signals_pending(&w->handled);
}

static void reap_helper(struct watch *w)
{
	struct network *network = &w->vm->network;
	int status;
	if (!network->helper || waitpid(network->helper, &status, WNOHANG) != network->helper)
		return;
	network->helper = 0;
	w->helper_gone_at = now_ns() + HELPER_NS;
}

/* Returns true once the VM is gone. */
static bool reap_vm(struct watch *w)
{
	for (;;) {
		if (wait4(w->pid, &w->status, WNOHANG, &w->usage) != w->pid)
			return false;
		if (!WIFSTOPPED(w->status))
			return true;
		trace_step(w->pid, w->status);
	}
}

static void on_request(struct watch *w, int request)
{
	switch (request) {
	case CONTROL_ASK_STATS:
		control_stats(&w->vm->control, w->vm->options, w->pid, w->vm->started_ns);
		return;
	case CONTROL_ASK_PAUSE:
		w->paused = true;
		kill(w->pid, SIGSTOP);
		break;
	case CONTROL_ASK_RESUME:
		w->paused = false;
		kill(w->pid, SIGCONT);
		break;
	case CONTROL_ASK_STOP:
		on_signal(w, SIGTERM);
		break;
	case CONTROL_ASK_KILL:
		kill(w->pid, SIGKILL);
		break;
	}
	control_done(&w->vm->control);
}

static void watch(struct watch *w)
{
	while (!reap_vm(w)) {
		reap_helper(w);
		shares_check(w->vm->options, w->vm->shares);
		int number = wait_for_event(w);
		if (number)
			on_signal(w, number);
		for (int i = 0; i < REQUESTS && (number = control_request(&w->vm->control)); i++)
			on_request(w, number);
		control_check(&w->vm->control);
		if (w->vm->output.exceeded)
			kill(w->pid, SIGKILL);
		on_time(w);
	}
}

/* Passes on what the VM wrote before its end. The reader may be stuck: signals and --timeout still end the wait. */
static void finish_output(struct watch *w)
{
	if (w->timed_out || w->stop_signal || w->vm->output.exceeded)
		w->timeout_at = now_ns() + DRAIN_NS;
	w->kill_at = w->stats_at = w->helper_gone_at = w->memory_at = w->cpu_time_at = NEVER;
	while (output_pending(&w->vm->output)) {
		if (now_ns() >= w->timeout_at) {
			w->timed_out = !w->stop_signal && !w->vm->output.exceeded;
			return;
		}
		int number = wait_for_event(w), request = control_request(&w->vm->control);
		if (request)
			control_done(&w->vm->control);
		if (request == CONTROL_ASK_STOP || request == CONTROL_ASK_KILL) {
			w->stop_signal = w->stop_signal ? w->stop_signal : SIGTERM;
			return;
		}
		control_check(&w->vm->control);
		if (number == SIGTSTP) {
			terminal_restore();
			signals_stop();
		} else if (number && number != SIGCHLD && number != SIGWINCH) {
			w->stop_signal = w->stop_signal ? w->stop_signal : number;
			return;
		}
	}
}

static void close_vm_descriptors(struct vm *vm)
{
	for (int fd = 0; fd < FD_COUNT; fd++)
		if (vm->descriptors[fd] >= FD_HIGH)
			close(vm->descriptors[fd]);
	close(vm->kernel.fd);
	vm->network.fd = -1;
}

/* Returns the launcher's exit status, and prints how the VM ended where the status does not say so. */
static int exit_status(const struct watch *w, const char **reason)
{
	int number = WIFSIGNALED(w->status) ? WTERMSIG(w->status) : 0;
	if (w->stop_signal) {
		*reason = "terminated";
		return 128 + w->stop_signal;
	}
	if (w->timed_out) {
		*reason = "timeout";
		note("the VM was stopped after %g seconds (--timeout)", (double)w->vm->options->timeout_ns / 1e9);
		return EXIT_TIMEOUT;
	}
	if (w->vm->output.exceeded) {
		*reason = "max-output";
		note("the VM was killed because it wrote more than %llu bytes (--max-output)",
		     (unsigned long long)w->vm->options->max_output);
		return 128 + SIGXFSZ;
	}
	if (w->memory_exceeded) {
		*reason = "max-cow";
		note("the VM was killed because changes to copy-on-write disks used too much memory (--max-cow)");
		return 128 + SIGKILL;
	}
	if (w->cpu_time_used_up) {
		*reason = "cpu-time";
		note("the VM was killed after %g seconds of processor time (--cpu-time)",
		     (double)w->vm->options->cpu_time_ns / 1e9);
		return 128 + SIGXCPU;
	}
	*reason = number ? "signal" : "exit";
	if (!number) {
		struct status status;
		status_read(&status, w->vm->started_ns, now_ns());
		/* A panic may be silent, depending on the log level. */
		if (WEXITSTATUS(w->status) == EXIT_OWN_ERROR && !status.user_ns && !w->vm->options->verbose &&
		    !w->vm->options->restore)
			note("the guest's kernel failed before its first program ran (--verbose shows why)");
		return WEXITSTATUS(w->status);
	}
	if (number == SIGSYS)
		note("the VM was killed because it made a host system call that its policy forbids "
		     "(--trace-policy shows which)");
	else
		note("the VM was killed by signal %d (%s)", number, strsignal(number));
	return 128 + number;
}

int vm_run(struct vm *vm)
{
	struct watch w = {.vm = vm, .kill_at = NEVER, .timeout_at = NEVER, .stats_at = NEVER,
			  .helper_gone_at = NEVER, .memory_at = NEVER, .cpu_time_at = NEVER};
	const struct options *o = vm->options;
	w.signals = signals_block(&w.handled);
	if (o->trace_policy)
		trace_warn();
	terminal_raw();
	status_set_window(vm->terminal);
	w.pid = vm_start(vm);
	close_vm_descriptors(vm);
	memory_watch_start(&vm->memory, w.pid);
	/* The caller's limit on file sizes must not end the launcher. The VM keeps the default action. */
	if (vm->output.active)
		signal(SIGXFSZ, SIG_IGN);
	uint64_t now = now_ns();
	if (o->timeout_ns)
		w.timeout_at = now + o->timeout_ns;
	if (o->cpu_time_ns != UNLIMITED)
		w.cpu_time_at = now + o->cpu_time_ns;
	if (vm->stats_fd >= 0)
		w.stats_at = now + FIRST_STATS_NS;
	if (vm->memory.status >= 0)
		w.memory_at = now;
	watch(&w);
	if (w.stats_at != NEVER)
		report_running(vm->stats_fd, vm->started_ns);
	finish_output(&w);

	struct ending end = {.started_ns = vm->started_ns, .ended_ns = now_ns(), .peak_kib = w.usage.ru_maxrss,
			     .why_cold = vm->start.why};
	terminal_restore();
	network_close(&vm->network);
	shares_end(o, vm->shares);
	control_end(&vm->control);
	end.status = exit_status(&w, &end.reason);
	end.signal = WIFSIGNALED(w.status) ? WTERMSIG(w.status) : 0;
	snapshot_finish(o, &vm->snapshot);
	if (o->json)
		report_end(&end);
	return end.status;
}
