# SPDX-License-Identifier: Apache-2.0
"""Which steps run again after an edit of the code below them, for every kind of step of the project."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, Checkout

# Writes the digests of the code of all steps, before the edits and after each. They are computed from the sources, so
# the process need not load the tasks again.
_WRITE = """
import json
import pathlib
import sys
import dodo
from doit.loader import load_tasks
from nabla.engine import code
from nabla.engine.action import Action
actions = {}
for task in load_tasks(vars(dodo)):
    for action in task.actions:
        step = getattr(action, "py_callable", None)
        if isinstance(step, Action):
            actions[task.name] = step
def digests():
    for function in (code.closure, code._digest, code._imports):
        function.cache_clear()
    steps = {}
    for name, step in actions.items():
        function = f"{step.function.__module__}.{step.function.__name__}"
        steps[name] = [function.removeprefix("nabla."), step.config.code()]
    return steps
result = {"": digests()}
for identity, (name, edited) in json.loads(pathlib.Path(sys.argv[1]).read_text()).items():
    path = pathlib.Path(name)
    text = path.read_text()
    path.write_text(edited)
    result[identity] = digests()
    path.write_text(text)
pathlib.Path(sys.argv[2]).write_text(json.dumps(result))
"""

_COMPONENTS = {f"build.component.{name}" for name in ("configure", "compile_component", "install")}
_TREES = {"build.source_tree.unpack", "build.source_tree.patch"}
_KERNEL = {"build.kernel.config", "build.kernel.compile_kernel"}
_TOOLS = {"fs.alpine_tools.make_apk_tools", "fs.alpine_tools.make_image_tools"}
# The module that draws the graph also writes templates, for which it fetches sources.
_FETCH = {"sources.fetch.fetch_recipe", "packages.templates.tasks.draw"}
_ARCHIVE = {"release.archive_check.check"}
_REPOSITORY = {f"packages.repository.{name}" for name in ("show_key", "make_index", "unsign")}
_PACKAGES = {"packages.builder.make_packages"}
_CONTAINER = {"images.oci.make_image", "images.oci.make_reference"}
_PROGRAMS = {"images.program_check.check_pie", "images.program_check.check_image"}
_BILLS = {"sbom.documents.write", "sbom.documents.write_reference"}
_BUSYBOX = {"tests.busybox.suite.build_stock", "tests.busybox.suite.check_busybox"}
_REPORT = {"report.inputs.write"}
_LOCKS = {"sandbox.tasks.update", "sandbox.tasks.verify"}
_ROOTS = {f"sandbox.tasks.{name}" for name in ("fetch", "unpack")} | _LOCKS
_PROGRAM_SETS = {f"tests.programs.tasks.{name}" for name in ("make_image", "run_cases", "update")}
_DIGESTS = {"release.digest_tasks.compare", "release.digest_tasks.update"}
_SECOND = {"repro.tasks.prepare", "repro.tasks.compare"}

# A module, a function in it, and the actions of all steps that run it.
EDITS = (
    ("nabla/build/series.py", "touched", _TREES | _COMPONENTS | _KERNEL | _PACKAGES),
    ("nabla/build/kconfig.py", "check", _KERNEL),
    ("nabla/build/component.py", "_recipe_files", _COMPONENTS),
    ("nabla/sources/origins/url.py", "_reason", _FETCH | _ARCHIVE),
    ("nabla/sources/openpgp.py", "check", _FETCH | _ARCHIVE),
    ("nabla/sandbox/tasks.py", "unpack", _ROOTS),
    ("nabla/packages/split.py", "_fits", _PACKAGES),
    ("nabla/packages/elf.py", "_library_version", _PACKAGES),
    ("nabla/packages/templates/render.py", "as_dot", {"packages.templates.tasks.draw"}),
    ("tests/busybox/suite.py", "parse", _BUSYBOX),
    ("nabla/packages/upstream_tests.py", "counts", {"packages.upstream_tests.check_package"}),
    ("nabla/fs/alpine_tools.py", "extract", _TOOLS | _REPOSITORY),
    ("nabla/images/compose.py", "_add_busybox", {"images.compose.make_image"}),
    ("nabla/images/oci.py", "_member", _CONTAINER),
    ("nabla/images/wheel_tasks.py", "_record", {"images.wheel_tasks.make_wheel"}),
    ("verify/kernel_code.py", "describe", {"build.kernel_check.check_kernel"}),
    ("verify/syscalls.py", "as_table", _PROGRAMS | _REPORT),
    ("nabla/farm/setup.py", "_succeeds", {"farm.setup.install"}),
    ("nabla/sbom/spdx.py", "_license", _BILLS),
    ("nabla/sbom/licenses.py", "_is_license", _BILLS),
    ("nabla/report/graph.py", "reduce", _REPORT),
    ("nabla/policy/document.py", "describe", _REPORT | {"policy.tasks.update"}),
    ("nabla/release/assembly.py", "_compress", {"release.contents.make"} | _ARCHIVE),
    (
        "nabla/release/digests.py",
        "differences",
        _REPORT | {"release.digest_tasks.compare", "release.digest_tasks.update"},
    ),
    (
        "tests/programs/cases.py",
        "_run_all",
        {f"tests.programs.tasks.{name}" for name in ("make_image", "run_cases", "update")},
    ),
    ("nabla/repro/comparison.py", "check", _SECOND),
)


Digests = Mapping[str, tuple[str, object]]


def edited(text: str, function: str) -> str:
    """Add a statement to a function of a module."""
    lines = text.splitlines(keepends=True)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    (definition,) = [node for node in nodes if node.name == function]
    last = definition.body[-1]
    lines.insert(last.lineno - 1, " " * last.col_offset + "assert True\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files from which the tasks are loaded."""
    root = tmp_path_factory.mktemp("code") / "checkout"
    for name in (
        "nabla",
        "verify",
        "demo",
        "recipes",
        "rootfs",
        "patches",
        "kernel-config",
        "launcher",
        "init",
        "oci",
        "toolchain",
        "bench",
        "digests",
        "farm",
        "python",
    ):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("busybox", "guest", "programs"):
        shutil.copytree(ROOT / "tests" / name, root / "tests" / name)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    return root


@pytest.fixture(scope="module")
def digests(copy: Path) -> Mapping[str, Digests]:
    """The action and the code's digest of each step: after each edit by its name, and before them under ""."""
    edits = {f"{name}:{function}": (name, edited((copy / name).read_text(), function)) for name, function, _ in EDITS}
    request, answer = copy.with_name("edits.json"), copy.with_name("digests.json")
    request.write_text(json.dumps(edits))
    subprocess.run([sys.executable, "-c", _WRITE, str(request), str(answer)], cwd=copy, check=True)
    return {
        identity: {name: (action, code) for name, (action, code) in steps.items()}
        for identity, steps in json.loads(answer.read_text()).items()
    }


@pytest.mark.parametrize(("module", "function", "actions"), EDITS, ids=[f"{edit[0]}:{edit[1]}" for edit in EDITS])
def test_an_edit_deep_below_runs_these_steps_again_and_no_others(
    digests: Mapping[str, Digests], module: str, function: str, actions: set[str]
) -> None:
    before, after = digests[""], digests[f"{module}:{function}"]
    changed = {name for name in after if after[name] != before[name]}
    assert {after[name][0] for name in changed} == actions
    # All steps with such an action, regardless of their outputs.
    assert changed == {name for name in after if after[name][0] in actions}


def test_edits_cover_every_kind_of_step(digests: Mapping[str, Digests]) -> None:
    assert {action for action, _ in digests[""].values()} == set().union(*(actions for *_, actions in EDITS))


def test_doit_runs_the_steps_again(checkout: Checkout) -> None:
    """Two steps with their own code, three modules deep; other modules, and those in core, do not count."""
    for name in ("one", "two"):
        checkout.write(f"nabla/testing/{name}_deep.py", f"def text():\n    return '{name}'\n")
        checkout.write(
            f"nabla/testing/{name}_middle.py",
            f"def text():\n    from nabla.testing import {name}_deep\n    return {name}_deep.text()\n",
        )
        checkout.write(
            f"nabla/testing/{name}.py",
            "from nabla.core.paths import OUT\n"
            f"from nabla.testing.{name}_middle import text\n"
            f"def write(job):\n    job.out(OUT / '{name}').write_text(text())\n",
        )
    checkout.task_module(
        "both",
        "from nabla.core.paths import OUT\n"
        "from nabla.engine.task import step\n"
        "from nabla.testing import one, two\n"
        "def task_one():\n    return step('one', one.write, doc='one', outputs=[OUT / 'one'])\n"
        "def task_two():\n    return step('two', two.write, doc='two', outputs=[OUT / 'two'])\n",
    )
    checkout.doit("one", "two")
    checkout.write("nabla/testing/one_deep.py", "def text():\n    return 'another'\n")
    assert "the code of the task changed: nabla/testing/one_deep.py" in checkout.doit("explain", "one")
    output = checkout.doit("one", "two")
    assert "one: done" in output and "two: done" not in output
    assert (checkout.root / "out/one").read_text() == "another"
    log = checkout.root / "nabla/core/log.py"
    log.write_text(log.read_text() + "\nUNUSED = 1\n")
    assert "2 up to date" in checkout.doit("one", "two")
