# SPDX-License-Identifier: Apache-2.0
"""Environments that resemble machines: each has its own network namespace, user, home and checkout.

The machines are connected by a bridge, which a test can cut. As root, each machine is another user; without root, all
of this happens in a user namespace, where other users do not exist.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

_FIRST_USER = 65100
_PREFIX = "10.99.7"


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter; pytest's own belong to one user."""
    with tempfile.TemporaryDirectory(prefix="nabla-machines-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _ready(holder: subprocess.Popen[bytes]) -> int:
    """Wait until a process that holds a namespace has created it, and has written a line."""
    assert holder.stdout is not None
    line = holder.stdout.readline()
    assert line == b"ready\n", f"no namespace: {line!r}"
    return holder.pid


@contextmanager
def _held(prefix: Sequence[str], *options: str) -> Iterator[int]:
    argv = [*prefix, "unshare", *options, "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            yield _ready(holder)
        finally:
            holder.kill()


@dataclass
class Machine:
    """One machine; `base`: the folder with its home, which only its user may read."""

    name: str
    address: str
    base: Path
    user: int
    prefix: tuple[str, ...]
    network: Network
    variables: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The home of its user."""
        return self.base / "home"

    @property
    def passwd(self) -> Path:
        """Its list of users."""
        return self.base / "passwd"

    def argv(self, *words: str | Path) -> list[str]:
        """The command of the host that runs a command on this machine, as its user."""
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"] if self.user else []
        return [
            *self.prefix,
            *_own_home(self.passwd),
            *self.mounts,
            "--",
            *become,
            "env",
            "-i",
            *self._environment(),
            *map(str, words),
        ]

    def _environment(self) -> list[str]:
        variables = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.base / "tmp"),
            "USER": f"user{self.user}",
            "LOGNAME": f"user{self.user}",
            "LANG": "C.UTF-8",
            **self.variables,
        }
        return [f"{name}={value}" for name, value in variables.items()]

    def run(self, *words: str | Path, cwd: Path | None = None, status: int = 0) -> str:
        """Run a command on this machine; return its output."""
        done = subprocess.run(
            self.argv(*words), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def popen(self, *words: str | Path, cwd: Path | None = None, output: Path | None = None) -> subprocess.Popen[str]:
        """Start a command on this machine."""
        argv = self.argv(*words)
        if output is None:
            return subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with output.open("w") as stream:
            return subprocess.Popen(argv, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, text=True)

    def small_disk(self, path: Path, size: int = 4 << 20) -> None:
        """Let commands that start from now on find a small, empty disk at a path."""
        path.mkdir()
        self.mounts += ["--perms", "0777", "--size", str(size), "--tmpfs", str(path)]

    def own(self, path: Path) -> None:
        """Give a file or folder to this machine's user."""
        if self.user:
            subprocess.run(["chown", "-R", "-h", f"{self.user}:{self.user}", path], check=True)

    def checkout(self, name: str = "ein anderer Ört") -> Path:
        """Clone the repository of this checkout, with changes that are not committed yet."""
        root = self.base / name
        git = ["git", "-c", "safe.directory=*"]
        if (ROOT / ".git").exists():
            subprocess.run([*git, "clone", "--quiet", "--no-hardlinks", ROOT, root], check=True)
        else:
            root.mkdir()
            subprocess.run([*git, "init", "--quiet", root], check=True)
        _copy_changes(root)
        self.own(root)
        return root

    def doit(self, root: Path, *words: str, status: int = 0) -> str:
        """Run doit in a checkout, by this test's Python."""
        return self.run(*self.doit_words(root, *words), cwd=root, status=status)

    def doit_words(self, root: Path, *words: str) -> list[str]:
        """The command that runs doit in a checkout."""
        return ["env", f"PYTHONPATH={root}", "PYTHONUNBUFFERED=1", sys.executable, "-m", "doit", *words]

    def cut(self) -> None:
        """Cut the cable: packets are lost, and no host is informed."""
        self.network.ip("link", "set", f"to-{self.name}", "down")

    def join(self) -> None:
        """Put the cable back."""
        self.network.ip("link", "set", f"to-{self.name}", "up")


class Network:
    """A bridge with machines."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._stack = ExitStack()
        self._machines = 0
        self._inside: tuple[str, ...] = ()

    def __enter__(self) -> Network:
        is_root = os.geteuid() == 0
        options = ("--net",) if is_root else ("--user", "--map-root-user", "--net")
        pid = self._stack.enter_context(_held((), *options))
        user = () if is_root else ("--user", "--preserve-credentials")
        self._inside = ("nsenter", f"--target={pid}", "--net", *user, "--")
        self.ip("link", "add", "bridge", "type", "bridge")
        self.ip("link", "set", "bridge", "up")
        self.base.mkdir(parents=True, exist_ok=True)
        self.base.chmod(0o755)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def ip(self, *words: str, prefix: Sequence[str] = ()) -> None:
        """Run ip(8) beside the bridge."""
        subprocess.run([*(prefix or self._inside), "ip", *words], check=True)

    def machine(self, name: str) -> Machine:
        """Add a machine."""
        self._machines += 1
        pid = self._stack.enter_context(_held(self._inside, "--net"))
        prefix = (*self._inside[:-1], "--", "nsenter", f"--target={pid}", "--net", "--")
        address = f"{_PREFIX}.{self._machines}"
        self.ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "net0", "netns", str(pid))
        self.ip("link", "set", f"to-{name}", "master", "bridge", "up")
        self.ip("link", "set", "lo", "up", prefix=prefix)
        self.ip("address", "add", f"{address}/24", "dev", "net0", prefix=prefix)
        self.ip("link", "set", "net0", "up", prefix=prefix)
        base = self.base / name
        user = _FIRST_USER + self._machines if os.geteuid() == 0 else 0
        new = Machine(name, address, base, user, prefix, self)
        for folder in (base, new.home, base / "tmp"):
            folder.mkdir(parents=True)
        entry = f"user{user}:x:{user}:{user}::{new.home}:/bin/sh\n"
        new.passwd.write_text(Path("/etc/passwd").read_text() + entry)
        new.own(base)
        return new


def _own_home(passwd: Path) -> list[str]:
    """bubblewrap's options that hide the home of the user who runs the tests, but not the Python in it."""
    words = ["bwrap", "--cap-add", "ALL", "--dev-bind", "/", "/", "--tmpfs", str(Path.home())]
    # ssh-keygen requires a user name.
    words += ["--ro-bind", str(passwd), "/etc/passwd"]
    for folder in dict.fromkeys((sys.base_prefix, sys.prefix)):
        inside = Path(folder)
        if inside.is_relative_to(Path.home()):
            above = [each for each in reversed(inside.parents) if each.is_relative_to(Path.home())]
            for each in above[1:]:
                words += ["--perms", "0755", "--dir", str(each)]
            words += ["--ro-bind", folder, folder]
    return words


def _copy_changes(root: Path) -> None:
    """Commit the differences from the commit here, so that tests see the current state."""
    git = ["git", "-c", "safe.directory=*"]
    words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        listed = subprocess.run([*git, *words], cwd=ROOT, capture_output=True, check=True).stdout
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    for name in names:
        if name.startswith("out/"):
            continue
        source, target = ROOT / name, root / name
        if not source.exists():
            target.unlink(missing_ok=True)
        elif not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    if (ROOT / ".git").exists() and not subprocess.run(
        [*git, "status", "--porcelain"], cwd=root, capture_output=True, check=True
    ).stdout:
        return  # the same commit as here
    identity = ["-c", "user.name=test", "-c", "user.email=test@nabla.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, *identity, "add", "--all"], cwd=root, check=True)
    subprocess.run([*git, *identity, "commit", "--quiet", "--allow-empty", "-m", "now"], cwd=root, check=True)
