# SPDX-License-Identifier: Apache-2.0
"""Packages from recipe to installed system, built by doit in a small checkout: results, errors, and what is built again
after which change."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nabla.fs import nodes
from tests.conftest import Checkout

from .sample_packages import (
    CACHE,
    FILES,
    LIBRARY,
    PROGRAM,
    apk,
    checkout,
    compiled,
    errors,
    prepared,
    ran,
    repository,
    sums,
    write,
)

__all__ = ["checkout", "prepared"]


def test_what_is_made(checkout: Checkout) -> None:
    assert {path.name for path in repository(checkout).iterdir()} == {
        "Packages.adb",
        "greeter-3-r0.apk",
        "libgcc-12.2.0-r0.apk",
        "libgcc-dev-12.2.0-r0.apk",
        "libgreet-1.2-r0.apk",
        "libgreet-dev-1.2-r0.apk",
        "musl-1.2.5-r100.apk",
        "musl-dev-1.2.5-r100.apk",
    }
    assert (checkout.root.parent / "keys" / "nabla.rsa").stat().st_mode & 0o777 == 0o600


def test_installed_by_the_real_apk(checkout: Checkout, tmp_path: Path) -> None:
    root = tmp_path / "root"
    apk(checkout, root, "add", "--initdb", "--arch", "x86_64", "greeter", "libgreet-dev")
    assert {path.name for path in (root / "usr/lib").iterdir()} >= {"libgreet.so.1.2", "libgreet.so.1", "libgreet.so"}
    assert (root / "etc/greeter/secret").stat().st_mode & 0o7777 == 0o640
    assert (root / "etc/greeter/empty").stat().st_mode & 0o7777 == 0o1777
    assert not (root / "usr/share/doc").exists()
    words = [f"{root}/lib/ld-musl-x86_64.so.1", "--library-path", f"{root}/usr/lib", f"{root}/usr/bin/greeter"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "hello\n"
    assert "greeter-3-r0" in apk(checkout, root, "info", "-e", "-v", "greeter")
    # Its own folder does not belong to a package here.
    assert apk(checkout, root, "audit") == "D etc/apk/\n"


IMAGE = """\
name = "tiny"
summary = "a test"
size = "8M"
parts = ["musl"]
packages = ["greeter"]
"""


def test_in_an_image(checkout: Checkout) -> None:
    checkout.write("rootfs/tiny.toml", IMAGE)
    checkout.doit("rootfs:tiny")
    image = checkout.root / "out/images/tiny.ext3"
    tree = nodes.read_ext(image)
    assert {path for path in tree if path.startswith("/usr/") and tree[path].kind != "dir"} == {
        "/usr/bin/greeter",
        "/usr/lib/libgreet.so.1",
        "/usr/lib/libgreet.so.1.2",
    }
    assert tree["/etc/greeter/secret"].mode == 0o640
    assert {node.uid for node in tree.values()} == {0}
    assert b"P:greeter" in tree["/lib/apk/db/installed"].content()
    first = hashlib.sha256(image.read_bytes()).hexdigest()
    # Byte-identical, with another umask too; nothing else runs again.
    image.unlink()
    before = os.umask(0o077)
    try:
        output = checkout.doit("rootfs:tiny")
    finally:
        os.umask(before)
    assert next(line for line in output.splitlines() if ": done in" in line).startswith("rootfs:tiny")
    assert hashlib.sha256(image.read_bytes()).hexdigest() == first


def test_image_does_not_tell_the_key(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkout.write("rootfs/tiny.toml", IMAGE)
    checkout.doit("rootfs:tiny")
    image = checkout.root / "out/images/tiny.ext3"
    first, packages = hashlib.sha256(image.read_bytes()).hexdigest(), sums(checkout)
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path / "other keys"))
    assert "rootfs:tiny: done" in checkout.doit("rootfs:tiny")
    assert hashlib.sha256(image.read_bytes()).hexdigest() == first
    changed = sums(checkout)
    assert changed["greeter-3-r0.apk"] != packages["greeter-3-r0.apk"]


def test_image_that_apk_refuses(checkout: Checkout) -> None:
    checkout.write("rootfs/tiny.toml", IMAGE)
    checkout.doit("rootfs:tiny")
    image = checkout.root / "out/images/tiny.ext3"
    first = image.read_bytes()
    checkout.write("recipes/greeter/recipe.toml", PROGRAM.replace("[package]", '[package]\ndepends = ["absent>2"]'))
    output = checkout.doit("rootfs:tiny", status=2)
    assert "error: apk could not install greeter" in output
    assert "absent (no such package)" in output
    assert image.read_bytes() == first
    checkout.write("rootfs/tiny.toml", IMAGE.replace('"greeter"', '"greter"'))
    assert "error: there is no package 'greter'" in checkout.doit("rootfs:tiny", status=2)


def test_signature_is_checked(checkout: Checkout, tmp_path: Path) -> None:
    foreign = tmp_path / "keys"
    foreign.mkdir()
    out = apk(
        checkout, tmp_path / "r", "--keys-dir", str(foreign), "add", "--initdb", "--arch", "x86_64", "greeter", status=1
    )
    assert "Packages.adb: UNTRUSTED signature" in out
    assert not (tmp_path / "r/usr").exists()


def test_nothing_to_do(checkout: Checkout) -> None:
    checkout.doit("packages")
    assert ran(checkout.doit("packages")) == []


def test_what_is_made_again(checkout: Checkout) -> None:
    checkout.doit("packages")
    before = sums(checkout)
    # Everything compiled before, also by an earlier run, comes from the cache.
    never_seen = f"good morning, {time.time_ns()}"
    checkout.write("recipes/libgreet/recipe.toml", "# a comment\n" + LIBRARY)
    assert ran(checkout.doit("packages")) == []

    checkout.write("libgreet/greet.h", FILES["libgreet/greet.h"].replace("hello", never_seen))
    assert ran(checkout.doit("packages")) == ["libgreet", "greeter"]
    assert compiled(checkout, "greeter")
    changed = {name for name, digest in sums(checkout).items() if digest != before[name]}
    # The program is compiled with another header, which does not change its bytes.
    assert changed == {"libgreet-1.2-r0.apk", "libgreet-dev-1.2-r0.apk", "Packages.adb"}

    checkout.write("libgreet/greet.h", FILES["libgreet/greet.h"])
    assert ran(checkout.doit("packages")) == ["libgreet", "greeter"]
    assert not compiled(checkout, "libgreet")
    assert not compiled(checkout, "greeter")
    assert sums(checkout) == before

    checkout.write("recipes/greeter/recipe.toml", PROGRAM.replace("Greets", "Greets you"))
    assert ran(checkout.doit("packages")) == ["greeter"]
    assert not compiled(checkout, "greeter")


def test_told_why(checkout: Checkout) -> None:
    """doit explain names the difference, old and new: a step, a file, the result of another recipe."""
    checkout.doit("packages")
    file, recipe = checkout.root / "libgreet/greet.h", checkout.root / "recipes/greeter/recipe.toml"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    checkout.write("libgreet/greet.h", FILES["libgreet/greet.h"].replace("hello", "welcome"))
    recipe.write_text(PROGRAM.replace("-o greeter", "-Os -o greeter"))
    after = hashlib.sha256(file.read_bytes()).hexdigest()
    said = checkout.doit("explain", "packages:libgreet", "packages:greeter")
    assert f"input changed: libgreet/greet.h, sha256 {before[:12]}… → {after[:12]}…" in said
    assert re.search(r"build changed from …?.*-o greeter.* to .*-Os -o greeter", said), said
    checkout.doit("packages:libgreet")
    assert "input changed: out/packages/libgreet.json, sha256 " in checkout.doit("explain", "packages:greeter")


def test_other_division_compiles_nothing(checkout: Checkout) -> None:
    part = '[[package.subpackage]]\nname = "libgreet-headers"\nfiles = ["usr/include"]\n\n[[package.subpackage]]'
    checkout.write("recipes/libgreet/recipe.toml", LIBRARY.replace("[[package.subpackage]]", part))
    assert ran(checkout.doit("packages")) == ["libgreet", "greeter"]
    assert not compiled(checkout, "libgreet")
    assert (repository(checkout) / "libgreet-headers-1.2-r0.apk").exists()
    write(checkout)
    checkout.doit("packages")
    assert not (repository(checkout) / "libgreet-headers-1.2-r0.apk").exists()


REFUSED = {
    "unknown key": (
        PROGRAM.replace("makedepends", "makedepend"),
        "recipes/greeter/recipe.toml:11: package.makedepend: there is no such key",
    ),
    "unknown package": (
        PROGRAM.replace("libgreet-dev", "libgreat-dev"),
        "recipes/greeter/recipe.toml: makedepends: there is no package 'libgreat-dev'",
    ),
    "not position-independent": (
        PROGRAM.replace("$CC $CFLAGS", "gcc -no-pie -w $CFLAGS").replace(
            "main.c $($PKG_CONFIG --libs greet)", "-xc /dev/null -nostdlib -Wl,-e0"
        ),
        "greeter: /usr/bin/greeter: fixed addresses: ET_EXEC",
    ),
    "refused by the compiler": (
        PROGRAM.replace("$CFLAGS", "-no-pie"),
        "x86_64-nabla-linux-musl-gcc: error: -no-pie: the guest has one address space",
    ),
    "nothing installed": (
        PROGRAM[: PROGRAM.index("package = '''")] + "package = 'true'\n",
        "greeter: the step `package` installed no file below $DESTDIR",
    ),
    "no file for a subpackage": (
        PROGRAM + '[[package.subpackage]]\nname = "greeter-dev"\n',
        "greeter: no file matches the package greeter-dev",
    ),
    "undeclared library": (
        PROGRAM.replace("-o greeter", "-o greeter; sed -i s/libgreet.so.1/libgreat.so.1/ greeter"),
        "greeter: /usr/bin/greeter needs libgreat.so.1, which no build dependency contains",
    ),
    "failing step": (PROGRAM.replace("main.c", "absent.c"), "greeter: build failed with exit status 1"),
    "special file": (
        PROGRAM.replace("mkdir -m 1777", "mkfifo"),
        "greeter: /etc/greeter/empty is neither a file nor a link",
    ),
}


@pytest.mark.parametrize("title", REFUSED)
def test_refused(checkout: Checkout, title: str) -> None:
    checkout.doit("packages")
    before = sums(checkout)
    text, message = REFUSED[title]
    checkout.write("recipes/greeter/recipe.toml", text)
    output = checkout.doit("packages", status=2)
    assert message in output
    assert len(errors(output)) == 1
    assert "Traceback" not in output
    assert sums(checkout) == before


def test_circle(checkout: Checkout) -> None:
    checkout.write("recipes/libgreet/recipe.toml", LIBRARY.replace("[package]", '[package]\nmakedepends = ["greeter"]'))
    output = checkout.doit("packages", status=2)
    assert "makedepends form a cycle: greeter -> libgreet -> greeter" in output
    assert len(errors(output)) == 1


def test_two_owners_of_a_file(checkout: Checkout) -> None:
    checkout.doit("packages")
    index = (repository(checkout) / "Packages.adb").read_bytes()
    other = LIBRARY.replace('"libgreet"', '"other"').replace("libgreet-dev", "other-dev")
    checkout.write("recipes/other/recipe.toml", other.replace('local = "other"', 'local = "libgreet"'))
    output = checkout.doit("packages", status=2)
    assert "error: /usr/lib/libgreet.so.1 is in two packages, libgreet and other" in output or (
        "is in two packages, libgreet-dev and other-dev" in output
    )
    assert len(errors(output)) == 1
    assert (repository(checkout) / "Packages.adb").read_bytes() == index


def test_wrong_hash(checkout: Checkout) -> None:
    """The file in the cache has the package's name; no other file must enter the package."""
    text = LIBRARY.replace('"libgreet"', '"other"', 1).replace("libgreet-dev", "other-dev")
    origin = '[[source.origin]]\ntype = "url"\nurl = ["http://127.0.0.1:9/x.tar"]\nsha256 = "{}"\nsize = 5\n'
    checkout.write("recipes/other/recipe.toml", text.replace('local = "libgreet"', origin.format("a" * 64)))
    entry = CACHE / "sha256" / "aa" / ("a" * 64)
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_bytes(b"wrong")
    try:
        output = checkout.doit("packages:other", status=2)
    finally:
        entry.unlink(missing_ok=True)
        for aside in (CACHE / "damaged").glob(f"{entry.name}.*"):
            aside.unlink()
    assert f"the cache entry {entry} is damaged" in output
    assert len(errors(output)) == 1
    assert not (checkout.root / "out/packages/other.json").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_build(checkout: Checkout, number: signal.Signals) -> None:
    checkout.doit("packages")
    before = sums(checkout)
    marker = f"{number.name.lower()}-{time.time_ns()}"
    slow = PROGRAM.replace('build = "', f'build = "sed -i s/0/0/ main.c; : {marker}; test ! -e wait || sleep 60; ')
    checkout.write("recipes/greeter/recipe.toml", slow)
    checkout.write("greeter/wait", "")
    process = checkout.popen("packages:greeter")
    deadline = time.monotonic() + 60
    log = checkout.root / "out/logs/packages-greeter.log"
    while not (log.exists() and marker in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert sums(checkout) == before
    (checkout.root / "greeter/wait").unlink()
    assert ran(checkout.doit("packages")) == ["greeter"]
    assert compiled(checkout, "greeter")
    assert {name: digest for name, digest in sums(checkout).items() if name != "Packages.adb"} == {
        name: digest for name, digest in before.items() if name != "Packages.adb"
    }
