# SPDX-License-Identifier: Apache-2.0
"""Tests of installed packages: for each test, a VM installs them with apk and runs a script.

    tests/packages/<recipe>.toml      scripts, the packages that each needs, and the expected output
    out/package-tests/<recipe>.json   recipe, version, digest of the files, key, number of tests

The result cache stores a passed run under the digest of its inputs: tests, files of all installed packages, image,
kernel and launcher.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from nabla.core import digest, process, toml
from nabla.core.artifacts import APK_TOOLS, PUBLIC_KEY, image_path
from nabla.core.errors import CommandError, NablaError
from nabla.core.paths import NABLA_RUN, OUT, TESTS, VMLINUX, relative
from nabla.engine import result_cache
from nabla.images.install import recipes_for
from nabla.packages import apk, catalog
from nabla.sources.recipe import Dependency, Text

FOLDER = TESTS / "packages"
IMAGE = image_path("alpine")
MEMORY = "512M"
TIMEOUT = 900.0  # seconds

# Packages with these endings are offered to apk only if a test names them.
_UNUSED = ("-dev", "-doc", "-static", "-tests")
_REPOSITORY = "/tmp/repository"
_INSTALL = f"""
mkdir {_REPOSITORY}
tar -x -C {_REPOSITORY}
exec </dev/null
apk --no-network --no-cache --no-progress -q --keys-dir {_REPOSITORY}/keys --repositories-file /dev/null \\
	-X {_REPOSITORY}/Packages.adb add $packages >&2
"""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A script for `sh -e`, and its expected standard output. `packages`: to install, by default the recipe's
    main one; those with a `!` are removed from the image.
    """

    script: Text
    expected: Text
    packages: tuple[Dependency, ...] = ()


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of tests. `memory`: of the VM."""

    test: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]
    memory: Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]*[MG]$", description="a size such as 512M")] = MEMORY


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The passed tests of a recipe. `tree`: digest of its files, as in out/packages; `key`: digest of all inputs."""

    recipe: str
    version: str
    tree: str
    key: str
    tests: int


class PackageTestError(NablaError):
    """An installed package does not behave as its tests expect, or the tests are invalid."""


def path_of(recipe: str) -> Path:
    """Return the file with the tests of a recipe."""
    return FOLDER / f"{recipe}.toml"


def record_path(recipe: str) -> Path:
    """Return the file with the outcome."""
    return OUT / "package-tests" / f"{recipe}.json"


def load(recipe: str) -> Suite:
    """Read the tests of a recipe. Raises `PackageTestError` that names file, line and key."""
    document = toml.read(path_of(recipe), PackageTestError)
    tests = document.convert(Suite)
    for number, test in enumerate(tests.test):
        for name in test.packages:
            if not name.startswith("!") and name not in catalog.owners():
                document.fail(("test", number, "packages"), f"there is no package {name!r}")
    return tests


def packages(recipe: str, test: Case) -> tuple[str, ...]:
    """Return the packages that a test installs."""
    return tuple(name for name in test.packages if not name.startswith("!")) or (recipe,)


def recipes(recipe: str) -> list[str]:
    """Return all recipes whose packages the tests may install."""
    return recipes_for([name for test in load(recipe).test for name in packages(recipe, test)], [recipe])


def check(recipe: str, result: Path, log: Path) -> Outcome:
    """Run the tests of a recipe, or restore their outcome from the cache; write it to `result`.

    Raises `PackageTestError` for the first test that fails.
    """
    tests = load(recipe)
    key = _key(recipe, tests)
    title = f"{recipe}: tests of its packages"
    return result_cache.outcome(key, title, result, Outcome, lambda: _run_all(recipe, tests, key, log))


def _run_all(recipe: str, tests: Suite, key: str, log: Path) -> Outcome:
    for number, test in enumerate(tests.test, start=1):
        account = _run(recipe, test, tests.memory, log)
        if account:
            log.write_text(account, encoding="utf-8")
            raise PackageTestError(
                f"{relative(path_of(recipe))}: test {number} of {len(tests.test)} fails in the VM",
                "\n".join([*account.splitlines()[-40:], f"full output: {relative(log)}"]),
            )
    built = catalog.read_build_record(recipe)
    return Outcome(recipe=recipe, version=built.parts[0].version, tree=built.tree, key=key, tests=len(tests.test))


def _run(recipe: str, test: Case, memory: str, log: Path) -> str:
    """Run one test in a separate VM. Return a report of the differences in its output; empty if there are none."""
    names = packages(recipe, test)
    wanted = (*names, *(name for name in test.packages if name.startswith("!")))
    script = f"{install_script(wanted)}cd /root\n{test.script}"
    words = [str(NABLA_RUN), "--ephemeral", "--memory", memory, str(IMAGE), "--", "/bin/sh", "-ec", script]
    try:
        done = process.run(words, check=False, timeout=TIMEOUT, input=repository(names, log))
    except CommandError as error:
        return f"{error.message}\n"
    if done.returncode == 0 and done.stdout == test.expected:
        return ""
    return (
        f"status {done.returncode} after {done.seconds:.1f} s\n--- expected\n{test.expected}"
        f"--- output\n{done.stdout}--- errors\n{done.stderr}"
    )


def install_script(names: Sequence[str]) -> str:
    """Return the start of a script for /bin/sh that reads the archive of `repository` and installs these packages."""
    return f"packages='{' '.join(names)}'\n{_INSTALL}"


def repository(names: Sequence[str], log: Path) -> bytes:
    """Return a tar archive with the packages that these may need, their index and the public key."""
    parts = [
        part
        for name in recipes_for(names, [])
        for part in catalog.read_build_record(name).parts
        if part.name in names or not part.name.endswith(_UNUSED)
    ]
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=archive, mode="w") as tar:
        scratch = Path(folder)
        index = scratch / "Packages.adb"
        files = [part.apk for part in parts]
        apk.make_index(files, index, tools=APK_TOOLS.path, scratch=scratch / "index", log=log)
        tar.add(index, index.name)
        tar.add(PUBLIC_KEY, f"keys/{PUBLIC_KEY.name}")
        for path in files:
            tar.add(path, path.name)
    return archive.getvalue()


def _key(recipe: str, tests: Suite) -> str:
    trees = {name: catalog.read_build_record(name).tree for name in recipes(recipe)}
    machine = [digest.sha256_file(path) for path in (IMAGE, VMLINUX, NABLA_RUN)]
    return result_cache.key("package-tests", recipe, msgspec.to_builtins(tests), trees, machine, _INSTALL)
