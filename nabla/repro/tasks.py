# SPDX-License-Identifier: Apache-2.0
"""Does a second, different build give the same bytes? See nabla/repro/second_build.py for what is varied.

first build of what is compared -> repro:prepare -> repro (everything), or repro:musl, :kernel, :packages, …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from doit import get_var

from nabla.core import log
from nabla.core.artifacts import ARTIFACTS, Artifact
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT
from nabla.engine import task
from nabla.engine.action import Job, log_path
from nabla.engine.task import TaskDict
from nabla.repro import comparison, second_build
from nabla.repro.comparison import DifferenceError


def task_repro() -> Iterator[TaskDict]:
    """Build everything a second time, differently, and compare the bytes."""
    needs = [task for artifact in ARTIFACTS.values() for task in artifact.tasks]
    yield task.step(
        "repro",
        compare,
        doc="build everything a second time, differently, and compare the bytes; `doit fresh=1 repro` compiles it all",
        after=[*needs, "repro:prepare"],
        args=[list(ARTIFACTS)],
        always=True,
    )
    yield task.ungrouped(
        task.step(
            "repro:prepare",
            prepare,
            doc="copy the checkout to another place, for another user",
            after=["fetch", "toolchain"],
            always=True,
        ),
    )
    for name, artifact in ARTIFACTS.items():
        yield task.ungrouped(
            task.step(
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
    second_build.forget()
    if get_var("fresh"):
        second_build.empty_cache()
    second = second_build.prepare()
    second_build.remember(second)
    job.note(str(second.root))
    able, unable = second_build.varied()
    log.info(f"varied: {', '.join(able)}")
    if unable:
        log.warn(f"not varied here: {', '.join(unable)}")


def compare(job: Job, names: Sequence[str]) -> None:
    """Build artifacts in the second checkout, at once; print their sums, or fail where bytes differ."""
    second = second_build.current()
    artifacts = [ARTIFACTS[name] for name in names]
    second.build([task for artifact in artifacts for task in artifact.tasks], job.log)
    for line in compare_all(artifacts, second):
        job.note(line)
        log.info(f"identical: {line}")
    if len(names) == len(ARTIFACTS):
        # It is large, and may lie in memory; after a difference it stays, to be looked at.
        second_build.forget()


def compare_all(artifacts: Sequence[Artifact], second: second_build.SecondBuild) -> list[str]:
    """Return a line `sha256  path` for each file and folder. Raises `DifferenceError` that names all which differ."""
    lines: list[str] = []
    problems: list[NablaError] = []
    for artifact in artifacts:
        report = log_path(f"repro:{artifact.name}").with_suffix(".diff")
        try:
            lines += comparison.check(artifact.paths, ROOT, second.root, report)
        except NablaError as error:
            problems.append(error)
    if problems:
        raise DifferenceError(
            "; ".join(error.message for error in problems), "\n".join(error.hint for error in problems)
        )
    return lines
