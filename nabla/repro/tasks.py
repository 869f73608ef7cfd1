# SPDX-License-Identifier: Apache-2.0
"""Compare the bytes of a second, varied build; nabla/repro/second_build.py describes the variations.

first build of the artifacts -> repro:prepare -> repro (everything), or repro:musl, :kernel, :packages, …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from doit import get_var

from nabla.core import log
from nabla.core.artifacts import ARTIFACTS, INDEX, Artifact
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT
from nabla.engine import task
from nabla.engine.action import Job, log_path
from nabla.engine.task import TaskDict
from nabla.packages import catalog
from nabla.repro import comparison, second_build
from nabla.repro.comparison import DifferenceError


def task_repro() -> Iterator[TaskDict]:
    """Build everything a second time, in a different environment, and compare the bytes."""
    needs = [task for artifact in ARTIFACTS.values() for task in artifact.tasks]
    yield task.step(
        "repro",
        compare,
        doc="build everything again, in a different environment, and compare; `doit fresh=1 repro` compiles it all",
        after=[*needs, "repro:prepare"],
        args=[list(ARTIFACTS)],
        always=True,
    )
    yield task.ungrouped(
        task.step(
            "repro:prepare",
            prepare,
            doc="copy the checkout to another path, for another user",
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
    """Create the second checkout; print what varies."""
    second_build.discard_current()
    if get_var("fresh"):
        second_build.empty_cache()
    second = second_build.prepare()
    second_build.register(second)
    job.note(str(second.root))
    able, unable = second_build.varied()
    log.info(f"varied: {', '.join(able)}")
    if unable:
        log.warn(f"not varied on this host: {', '.join(unable)}")


def compare(job: Job, names: Sequence[str]) -> None:
    """Build artifacts in the second checkout by one doit; print their sums, or fail if bytes differ."""
    second = second_build.current()
    artifacts = [ARTIFACTS[name] for name in names]
    second.build([task for artifact in artifacts for task in artifact.tasks], job.log)
    for line in compare_all(artifacts, second):
        job.note(line)
        log.info(f"identical: {line}")
    if len(names) == len(ARTIFACTS):
        # It is large and may be in memory. After a difference it stays for inspection.
        second_build.discard_current()


def compared(artifact: Artifact) -> Sequence[Path]:
    """Return the files and folders of an artifact that both builds have."""
    if artifact.name == "packages":
        # The folder of the first build may also contain optional packages.
        return [INDEX, *catalog.all_apks()]
    return artifact.paths


def compare_all(artifacts: Sequence[Artifact], second: second_build.SecondBuild) -> list[str]:
    """Return a line `sha256  path` for each file and folder. Raises `DifferenceError` with all differing ones."""
    lines: list[str] = []
    problems: list[NablaError] = []
    for artifact in artifacts:
        report = log_path(f"repro:{artifact.name}").with_suffix(".diff")
        try:
            lines += comparison.check(compared(artifact), ROOT, second.root, report)
        except NablaError as error:
            problems.append(error)
    if problems:
        raise DifferenceError(
            "; ".join(error.message for error in problems), "\n".join(error.hint for error in problems)
        )
    return lines
