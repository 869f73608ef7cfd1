# SPDX-License-Identifier: Apache-2.0
"""Messages of a guest and of clients to the broker of a named VM, of a host to the agent, and of a broker to nabla-oci.

All are found by coverage: control.c, agent.c and sessions.c, with sanitizers. The agent starts programs of the sandbox.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from nabla.core.errors import CommandError
from nabla.core.paths import LAUNCHER_SRC, OCI_SRC, ROOT
from nabla.sandbox.bwrap import Bind, Sandbox

from .engine import Finding, Fuzzer

INIT_SRC = ROOT / "init"
CONVERSATIONS, AGENT_CONVERSATIONS, SESSION_CONVERSATIONS = 4000, 300, 10000
COMPILE = """
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
for name in $TESTED; do ccache gcc-12 $flags -fsanitize-coverage=trace-pc -c "$name"; done
ccache gcc-12 $flags -Wall -Wextra -Werror -c $FUZZER
gcc-12 $flags -static-libasan -static-libubsan $LINK *.o -o fuzzer
"""
BROKER = ("broker.c", "broker_session.c", "console_log.c", "broker.h", "control_wire.h")
SESSION = ("session.c",)
AGENT = ("agent.c", "agent_start.c", "agent_program.c", "exec.c", "user.c", "settings.c", "log.c")


@cache
def compiled(fuzzer: str, sources: Path, tested: tuple[str, ...], link: str = "") -> Path:
    """Return the folder with the program `fuzzer`. The tested files get names that do not clash with it."""
    folder = Path(tempfile.mkdtemp(prefix="nabla-control-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in (f"{fuzzer}.c", "conversations.h", "coverage.h"):
        shutil.copy(Path(__file__).with_name(name), folder / name.replace(fuzzer, "fuzzer"))
    for name in tested:
        shutil.copy(sources / name, folder)
    for header in (*INIT_SRC.glob("control_wire.h"), *sources.glob("*.h")):
        shutil.copy(header, folder)
    (folder / "files").mkdir()  # a mount point
    words = {"TESTED": " ".join(n for n in tested if n.endswith(".c")), "FUZZER": "fuzzer.c", "LINK": link}
    script = "".join(f"{key}='{value}'\n" for key, value in words.items()) + COMPILE
    Sandbox((Bind(folder, "/build", writable=True),)).run(script, title=f"the fuzzer {fuzzer}")
    return folder


def conversations(seed: int) -> Finding | None:
    """Conversations with the broker from one seed; the first are short, later ones mutate the best of them."""
    box = Sandbox((Bind(compiled("control", LAUNCHER_SRC, BROKER), "/build"),))
    return _run("control", box, f"{seed} {CONVERSATIONS}", seed)


def requests(seed: int) -> Finding | None:
    """Conversations with the agent, likewise."""
    program = compiled("agent", INIT_SRC, AGENT, "-Wl,--wrap=open,--wrap=read,--wrap=write")
    with tempfile.TemporaryDirectory() as files:
        box = Sandbox((Bind(program, "/build"), Bind(Path(files), "/build/files", writable=True)))
        return _run("agent", box, f"/build/files {seed} {AGENT_CONVERSATIONS}", seed)


def sessions(seed: int) -> Finding | None:
    """What nabla-oci hears in a session, likewise."""
    return _run(
        "sessions",
        Sandbox((Bind(compiled("sessions", OCI_SRC, SESSION), "/build"),)),
        f"{seed} {SESSION_CONVERSATIONS}",
        seed,
    )


def _run(name: str, box: Sandbox, words: str, seed: int) -> Finding | None:
    try:
        box.run(f"ASAN_OPTIONS=detect_leaks=1 ./fuzzer {words}", title=f"the fuzzer {name}")
    except CommandError as error:
        return Finding(name, seed, error.message, tuple(error.output)[-40:])
    return None


FUZZERS = (
    Fuzzer("control", "conversations", CONVERSATIONS, conversations),
    Fuzzer("agent", "conversations", AGENT_CONVERSATIONS, requests),
    Fuzzer("sessions", "conversations", SESSION_CONVERSATIONS, sessions),
)
