# SPDX-License-Identifier: Apache-2.0
"""A checkout with two small packages, a library and a program that uses it, for the tests of package builds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core import paths
from tests.conftest import ROOT, Checkout

CACHE = paths.cache_dir()
LIBRARY = """\
name = "libgreet"
version = "1.2"
license = "Apache-2.0"
summary = "A library that greets"

[[source]]
name = "libgreet"
local = "libgreet"

[package]
build = "$CC $CFLAGS -fPIC -shared -Wl,-soname,libgreet.so.1 greet.c -o libgreet.so.1.2"
package = '''
install -D libgreet.so.1.2 $DESTDIR/usr/lib/libgreet.so.1.2
ln -s libgreet.so.1.2 $DESTDIR/usr/lib/libgreet.so.1
ln -s libgreet.so.1 $DESTDIR/usr/lib/libgreet.so
install -D -m 644 greet.h $DESTDIR/usr/include/greet.h
install -D -m 644 greet.pc $DESTDIR/usr/lib/pkgconfig/greet.pc
install -D -m 644 greet.h $DESTDIR/usr/share/doc/greet/greet.h
'''

[[package.subpackage]]
name = "libgreet-dev"
"""
PROGRAM = """\
name = "greeter"
version = "3"
license = "Apache-2.0"
summary = "Greets"

[[source]]
name = "greeter"
local = "greeter"

[package]
makedepends = ["libgreet-dev"]
build = "$CC $CFLAGS $($PKG_CONFIG --cflags greet) main.c $($PKG_CONFIG --libs greet) -o greeter"
package = '''
install -D greeter $DESTDIR/usr/bin/greeter
install -D -m 640 main.c $DESTDIR/etc/greeter/secret
mkdir -m 1777 $DESTDIR/etc/greeter/empty
'''
"""
FILES = {
    "libgreet/greet.c": '#include <stdio.h>\n#include "greet.h"\nvoid greet(void) { puts(GREETING); }\n',
    "libgreet/greet.h": '#define GREETING "hello"\nvoid greet(void);\n',
    "libgreet/greet.pc": "Name: greet\nDescription: x\nVersion: 1.2\nRequires:\nLibs: -L/usr/lib -lgreet\n",
    "greeter/main.c": "#include <greet.h>\nint main(void) { greet(); return 0; }\n",
}
BUILT = ("libgreet", "greeter")
MUSL = """
from nabla.build import component
from nabla.core.artifacts import Tree
from nabla.core.paths import MUSL

def task_musl():
    yield from component.steps("musl", "musl", {".": Tree(MUSL)}, doc="build the libc", with_musl=False)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with libc, libgcc and two recipes with local sources; all packages are built once."""
    root = tmp_path_factory.mktemp("packages") / "a checkout"
    root.mkdir()
    shutil.copytree(ROOT / "nabla", root / "nabla", ignore=shutil.ignore_patterns("__pycache__", "*tasks.py"))
    for name in ("toolchain", "verify", "patches/musl"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for area in ("sources", "sandbox", "packages", "images"):
        shutil.copy(ROOT / "nabla" / area / "tasks.py", root / "nabla" / area)
    for name in ("demo", "nabla/testing"):
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    for name in ("musl", "libgcc", "alpine-base", "keys", "linux"):
        shutil.copytree(ROOT / "recipes" / name, root / "recipes" / name)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    checkout = Checkout(root)
    checkout.task_module("musl", MUSL)
    write(checkout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(CACHE))
        patch.setenv("NABLA_KEYS", str(root.parent / "keys"))
        checkout.doit("packages")
    yield checkout


@pytest.fixture
def checkout(prepared: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """That checkout with its recipes restored."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    monkeypatch.setenv("NABLA_KEYS", str(prepared.root.parent / "keys"))
    write(prepared)
    (prepared.root / "rootfs/tiny.toml").unlink(missing_ok=True)
    for extra in ("other", "cycle"):
        shutil.rmtree(prepared.root / "recipes" / extra, ignore_errors=True)
        (prepared.root / "out/packages" / f"{extra}.json").unlink(missing_ok=True)
    return prepared


def write(checkout: Checkout) -> None:
    checkout.write("recipes/libgreet/recipe.toml", LIBRARY)
    checkout.write("recipes/greeter/recipe.toml", PROGRAM)
    for name, text in FILES.items():
        checkout.write(name, text)


def ran(output: str) -> list[str]:
    """Return the packages that were built again, from doit's output."""
    done = [line.split(":")[1] for line in output.splitlines() if ": done in" in line and line.startswith("packages:")]
    return [name for name in done if name in BUILT]


def compiled(checkout: Checkout, name: str) -> bool:
    """Return whether the last run of a task compiled something."""
    return "restored from the cache" not in (checkout.root / f"out/logs/packages-{name}.log").read_text()


def errors(output: str) -> list[str]:
    """Return the error lines."""
    return [line for line in output.splitlines() if line.startswith("error:")]


def repository(checkout: Checkout) -> Path:
    return checkout.root / "out/apk/x86_64"


def sums(checkout: Checkout) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in repository(checkout).iterdir()}


def apk(checkout: Checkout, root: Path, *words: str, status: int = 0) -> str:
    """Run the real apk on a root file system, as mapped root."""
    tools = checkout.root / "out/work/apk-tools"
    argv = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--bind", "/", "/"]
    # apk splits a repository's path at blanks.
    argv += [
        "--dev",
        "/dev",
        "--bind",
        str(repository(checkout)),
        "/mnt",
        "--setenv",
        "LD_LIBRARY_PATH",
        f"{tools}/usr/lib",
    ]
    argv += [str(tools / "lib/ld-musl-x86_64.so.1"), str(tools / "sbin/apk"), "--root", str(root), "--no-network"]
    argv += ["--repositories-file", "/dev/null", "--keys-dir", str(checkout.root / "out/apk/keys"), "--no-cache"]
    argv += ["--no-logfile", "-X", "/mnt/Packages.adb", *words]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr
