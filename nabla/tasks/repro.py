# SPDX-License-Identifier: Apache-2.0
"""Does a second, different build give the same bytes? See nabla/repro.py for what is varied.

first build of what is compared -> repro:prepare -> repro (everything), or repro:musl, :kernel, :packages, …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from doit import get_var

from nabla import log, repro, repro_compare, tasklib
from nabla.artifacts import ARTIFACTS, Artifact
from nabla.errors import NablaError
from nabla.paths import ROOT
from nabla.repro_compare import DifferenceError
from nabla.tasklib import Job, TaskDict


def task_repro() -> Iterator[TaskDict]:
    """Build everything a second time, differently, and compare the bytes."""
    needs = [task for artifact in ARTIFACTS.values() for task in artifact.tasks]
    yield tasklib.step(
        "repro",
        compare,
        doc="build everything a second time, differently, and compare the bytes; `doit fresh=1 repro` compiles it all",
        after=[*needs, "repro:prepare"],
        args=[list(ARTIFACTS)],
        always=True,
    )
    yield tasklib.ungrouped(
        tasklib.step(
            "repro:prepare",
            prepare,
            doc="copy the checkout to another place, for another user",
            after=["fetch", "toolchain"],
            always=True,
        ),
    )
    for name, artifact in ARTIFACTS.items():
        yield tasklib.ungrouped(
            tasklib.step(
                f"repro:{name}",
                compare,
                doc=f"build {name} again and compare",
                after=[*artifact.tasks, "repro:prepare"],
                args=[[name]],
                always=True,
            ),
        )


def prepare(job: Job) -> None:
    """Make the second checkout; say what it will vary."""
    repro.forget()
    if get_var("fresh"):
        repro.empty_cache()
    second = repro.prepare()
    repro.remember(second)
    job.note(str(second.root))
    able, unable = repro.varied()
    log.info(f"varied: {', '.join(able)}")
    if unable:
        log.warn(f"not varied here: {', '.join(unable)}")


def compare(job: Job, names: Sequence[str]) -> None:
    """Build artifacts in the second checkout, at once; print their sums, or fail where bytes differ."""
    second = repro.current()
    artifacts = [ARTIFACTS[name] for name in names]
    second.build([task for artifact in artifacts for task in artifact.tasks], job.log)
    for line in compare_all(artifacts, second):
        job.note(line)
        log.info(f"identical: {line}")
    if len(names) == len(ARTIFACTS):
        # It is large, and may lie in memory; after a difference it stays, to be looked at.
        repro.forget()


def compare_all(artifacts: Sequence[Artifact], second: repro.SecondBuild) -> list[str]:
    """Return a line `sha256  path` for each file and folder. Raises `DifferenceError` that names all which differ."""
    lines: list[str] = []
    problems: list[NablaError] = []
    for artifact in artifacts:
        report = tasklib.log_path(f"repro:{artifact.name}").with_suffix(".diff")
        try:
            lines += repro_compare.check(artifact.paths, ROOT, second.root, report)
        except NablaError as error:
            problems.append(error)
    if problems:
        raise DifferenceError(
            "; ".join(error.message for error in problems), "\n".join(error.hint for error in problems)
        )
    return lines
