# SPDX-License-Identifier: Apache-2.0
"""Debian's programs, unmodified, in the guest: each case of the light sets of tests/programs in a separate VM.

What a case expects is what the same programs print on the host, in a sandbox. Heavy sets are checks of their own:
`doit check:programs-NAME`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core.paths import NABLA_RUN, VMLINUX, relative
from nabla.fs import ext3
from nabla.sandbox import bwrap
from tests.programs import cases, image
from tests.programs.cases import Case, Programs

SETS = [cases.load(name) for name in cases.names()]
LIGHT = [programs for programs in SETS if not programs.cases.heavy]
GUEST = [pytest.param(each, case, id=f"{each.name}-{case.name}") for each in LIGHT for case in each.cases.case]
HOSTED = [programs for programs in LIGHT if any(not case.guest for case in programs.cases.case)]


@pytest.mark.parametrize(("programs", "case"), GUEST)
def test_in_the_guest(programs: Programs, case: Case) -> None:
    for needed in (NABLA_RUN, VMLINUX, programs.image):
        if not needed.exists():
            pytest.fail(f"{relative(needed)} is missing; hint: ./doit.sh test builds it first", pytrace=False)
    account = cases.run(programs, case)
    assert not account, account


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Programs, Path]]:
    """The files of a set in a folder."""
    folder = tmp_path_factory.mktemp("root") / "files"
    ext3.stage(image.compose(request.param), folder)
    yield request.param, folder


@pytest.mark.parametrize("root", HOSTED, ids=lambda programs: programs.name, indirect=True)
def test_on_the_host(root: tuple[Programs, Path]) -> None:
    programs, folder = root
    words = [*bwrap.base(folder, user=0), "--die-with-parent", "--new-session", "--clearenv"]
    for empty in ("/work", "/run", "/root"):
        words += ["--tmpfs", empty]
    for name, value in cases.ENVIRONMENT.items():
        words += ["--setenv", name, value]
    hosted = [case for case in programs.cases.case if not case.guest]
    accounts = [cases.compare(case, [*words, *cases.SHELL, case.script]) for case in hosted]
    assert not any(accounts), "".join(accounts)
