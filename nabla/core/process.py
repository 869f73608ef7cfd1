# SPDX-License-Identifier: Apache-2.0
"""Start processes; no other module does.

This module handles the environment, the log file, interruptions and errors. The error of a failed command contains the
end and the path of its log, and a command line that repeats it.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ptyprocess import PtyProcess

from nabla.core.errors import CommandError, HostError
from nabla.core.paths import relative

TAIL_LINES = 20
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL when a build is interrupted


@dataclass(frozen=True)
class Result:
    """The result of a process: exit status (negative: signal number), captured text, wall-clock time in seconds."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,  # noqa: A002 (same name as in subprocess)
    progress: Callable[[str], None] | None = None,
    check: bool = True,
    timeout: float | None = None,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run one command to its end.

    With `log`, both output streams are appended to that file, `progress` receives each line, and `Result.stdout` is
    empty. Without `log`, the streams are captured and returned as text. `env` is added to the caller's environment.
    `timeout`: in seconds. Raises `CommandError` for a status other than 0 (unless `check` is false) and for a timeout,
    `HostError` if the program does not exist. An interruption of the caller ends the whole process group.
    """
    words = [str(word) for word in argv]
    begin = time.monotonic()
    data = input.encode() if isinstance(input, str) else input
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    sink: IO[bytes] | None = log.open("ab") if log is not None else None
    begin_of_output = 0
    process: subprocess.Popen[bytes] | None = None
    try:
        if sink is not None:
            sink.write(f"$ {paste_line(words, cwd, env)}\n".encode())
            sink.flush()
            begin_of_output = sink.tell()
        with _signals_held():
            process = _start(words, cwd, env, data, sink, progress, pass_fds)
        out, err = _pump(process, data, sink, progress, timeout)
    except BaseException as error:
        if process is not None:
            _end_group(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        hint = _failure_hint(words, cwd, env, log, tail(log, start=begin_of_output) if log is not None else [])
        raise CommandError(f"{_title(words)} took longer than {timeout:g} s", hint, returncode=124) from None
    finally:
        for stream in (sink, *((process.stdin, process.stdout, process.stderr) if process is not None else ())):
            if stream is not None:
                stream.close()
    result = Result(process.returncode, _text(out), _text(err), time.monotonic() - begin)
    if check and result.returncode != 0:
        text = (result.stderr or result.stdout).rstrip()
        output = tail(log, start=begin_of_output) if log is not None else text.splitlines()[-TAIL_LINES:]
        raise CommandError(
            f"{_title(words)} {describe_status(result.returncode)}",
            _failure_hint(words, cwd, env, log, output),
            returncode=result.returncode,
            output=output,
        )
    return result


def interactive(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run a command on the caller's terminal and return its exit status (128+N after signal N).

    The child stays in the caller's process group, so that it can read the terminal; the caller ignores ^C while it
    runs.
    """
    words = [str(word) for word in argv]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env=_environment(env),
            # An ignored SIGINT would be inherited through exec.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            status = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    except FileNotFoundError:
        raise _missing(words[0]) from None
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


@contextmanager
def on_terminal(
    argv: Sequence[str | Path],
    *,
    rows: int,
    cols: int,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[PtyProcess]:
    """Start a command on a new terminal of the given size, as the leader of a new session.

    The caller reads and writes the other end of the terminal, `.fd`. The exit of the context ends the command by
    SIGTERM, some seconds later by SIGKILL. Raises `HostError` if the program does not exist.
    """
    words = [str(word) for word in argv]

    def hand_over() -> None:
        for descriptor in pass_fds:
            os.set_inheritable(descriptor, True)

    try:
        with _signals_held():
            process = PtyProcess.spawn(
                words, env=_environment(env), preexec_fn=hand_over, dimensions=(rows, cols), pass_fds=tuple(pass_fds)
            )
    except FileNotFoundError:
        raise _missing(words[0]) from None
    try:
        yield process
    finally:
        _end_on_terminal(process)


def _end_on_terminal(process: PtyProcess) -> None:
    deadline = time.monotonic() + _GRACE
    if process.isalive():
        process.kill(signal.SIGTERM)
    while process.isalive():
        # Pending output must not block its exit.
        ready, _, _ = select.select([process.fd], [], [], 0.02)
        with suppress(OSError):
            if ready and not os.read(process.fd, 1 << 16):
                time.sleep(0.02)
        if time.monotonic() > deadline:
            process.kill(signal.SIGKILL)
    process.close()


def paste_line(argv: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Return a shell command line that runs the same command in the same folder."""
    words = [f"{name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    line = " ".join([*words, shlex.join(str(word) for word in argv)])
    return f"cd {shlex.quote(str(cwd))} && {line}" if cwd is not None else line


def describe_status(returncode: int) -> str:
    """Describe how a process ended."""
    if returncode < 0:
        return f"was ended by signal {-returncode} ({signal.strsignal(-returncode) or 'unknown'})"
    return f"failed with exit status {returncode}"


@contextmanager
def _signals_held() -> Iterator[None]:
    """Defer the handlers of SIGINT and SIGTERM until after the body.

    A handler that raises between the start of a child and the return of its process object would leave the child
    running. A child would inherit blocked signals.
    """
    held: list[tuple[int, FrameType | None]] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        for kind in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(kind)
            if callable(handler):
                before[kind] = handler
                signal.signal(kind, lambda *what: held.append(what))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for received, frame in held:
        before[received](received, frame)


def _start(
    words: list[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    data: bytes | None,
    sink: IO[bytes] | None,
    progress: Callable[[str], None] | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    merged = sink is not None
    direct = merged and progress is None
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=sink if direct else subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            process_group=0,
            pass_fds=tuple(pass_fds),
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise CommandError(f"cannot run {words[0]}: no directory {cwd}") from error
        raise _missing(words[0]) from error
    except PermissionError as error:
        raise HostError(f"cannot run {words[0]}: permission denied") from error


def _communicate(process: subprocess.Popen[Any], data: Any, timeout: float | None) -> tuple[Any, Any]:
    """Like `Popen.communicate`, but checks for signals every second.

    Python runs no handler for a signal that arrives between its last look and the start of a system call. It writes no
    more input after a timeout, so a thread does.
    """
    end = None if timeout is None else time.monotonic() + timeout
    if process.stdin is not None:
        threading.Thread(target=_feed, args=(process.stdin, data), daemon=True).start()
        process.stdin = None
    while True:
        left = 1.0 if end is None else min(1.0, max(0.0, end - time.monotonic()))
        try:
            return process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            if end is not None and time.monotonic() >= end:
                raise


def _feed(stream: IO[Any], data: Any) -> None:
    """Write all input of a program, which may end before it has read it."""
    with suppress(BrokenPipeError), stream:
        if data is not None:
            stream.write(data)


def _pump(
    process: subprocess.Popen[bytes],
    data: bytes | None,
    sink: IO[bytes] | None,
    progress: Callable[[str], None] | None,
    timeout: float | None,
) -> tuple[bytes, bytes]:
    if sink is None or progress is None:
        out, err = _communicate(process, data, timeout)
        return out or b"", err or b""
    if data is not None:
        raise ValueError("input and progress cannot be combined")
    assert process.stdout is not None
    # A program without output does not reach a check of the clock: a timer ends it.
    late = threading.Event()
    alarm = threading.Timer(timeout or 0, _end_late, [process, late])
    if timeout is not None:
        alarm.start()
    try:
        for line in process.stdout:
            sink.write(line)
            sink.flush()
            progress(line.decode(errors="replace").rstrip("\n"))
        process.wait()
    finally:
        alarm.cancel()
    if late.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout or 0)
    return b"", b""


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a child and all processes that it started: by SIGTERM, after some seconds by SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE)
    # The child has ended or ignores SIGTERM; its children may ignore it, too.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    # Programs parse the messages of tools, which must not depend on the user's locale.
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def _missing(program: str) -> HostError:
    return HostError(f"program not found: {program}", "`./doit.sh doctor` lists missing programs")


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def _title(words: Sequence[str]) -> str:
    return os.path.basename(words[0])


def _failure_hint(
    words: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None, log: Path | None, output: Sequence[str]
) -> str:
    lines = [] if log is None else [f"last lines of {relative(log)}:"]
    lines += [f"  {line}" for line in output]
    lines.append(f"to repeat: {paste_line(words, cwd, env)}")
    return "\n".join(lines)


def tail(path: Path, count: int = TAIL_LINES, start: int = 0) -> list[str]:
    """Return the last `count` lines of a text file after `start`, without line ends; none if it is absent."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            return [line.rstrip("\n") for line in deque(stream, maxlen=count)]
    except FileNotFoundError:
        return []
