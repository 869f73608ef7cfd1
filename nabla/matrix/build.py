# SPDX-License-Identifier: Apache-2.0
"""`doit matrix FILE`: build and test each variant in its own checkout, and write one page with the results.

    out/matrix/<variant>/       the checkout, a clone with the variant's changes; its outputs are kept
    out/matrix/<variant>.log    the output of its build and test
    out/matrix/index.html       the page; results.json contains the same data

All checkouts share the cache of results, so a variant builds only what its change affects. With --farm, workers build.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from nabla.core import files, log
from nabla.core.errors import CommandError, ConfigError, NablaError
from nabla.core.paths import OUT, ROOT, relative
from nabla.core.process import run, tail
from nabla.matrix import variants
from nabla.matrix.variants import Matrix, Variant

FOLDER = OUT / "matrix"
_SHOWN = 12  # lines of the log of a failed variant


@dataclass(frozen=True)
class Outcome:
    """The outcome of one variant. `step`: the failed one of apply, build and test; empty if none failed."""

    name: str
    summary: str
    step: str
    message: str
    seconds: float
    log: str
    end: tuple[str, ...]


def make(words: list[str], farm: str, parallel: int, workers: int) -> None:
    """Build all variants of a matrix. Raises `CommandError` if one fails, `ConfigError`."""
    if len(words) != 1:
        raise ConfigError("matrix takes one file", "example: doit matrix matrices/kernel.toml")
    matrix = variants.read(Path(words[0]).absolute())
    files.make_folder(FOLDER)
    options = ["-n", str(workers), *(["--farm", farm] if farm else [])]
    log.info(f"{len(matrix.variants)} variants, {parallel} at a time")
    with ThreadPoolExecutor(parallel) as pool:
        outcomes = list(pool.map(lambda each: _one(matrix, each, options), matrix.variants))
    page = write(Path(words[0]).name, outcomes)
    failed = [each.name for each in outcomes if each.step]
    log.info(f"{relative(page)}: {len(outcomes) - len(failed)} of {len(outcomes)} variants succeeded")
    if failed:
        raise CommandError(f"{len(failed)} variants failed: {', '.join(failed)}", f"see {relative(page)}")


def _one(matrix: Matrix, variant: Variant, options: list[str]) -> Outcome:
    """Build and test one variant; every problem is an outcome."""
    begin = time.monotonic()
    root, record = FOLDER / variant.name, FOLDER / f"{variant.name}.log"
    record.unlink(missing_ok=True)
    step, message = "apply", ""
    environment = {**variant.variables, "PYTHONPATH": str(root), "NABLA_QUIET": "0"}
    limit = matrix.hours * 3600
    try:
        clone(root)
        variants.apply(variant, root)
        step = "build"
        run(
            [sys.executable, "-m", "doit", *options, *matrix.tasks],
            cwd=root,
            env=environment,
            log=record,
            timeout=limit,
        )
        step = "test"
        if matrix.test:
            run(matrix.test, cwd=root, env=environment, log=record, timeout=limit)
        step = ""
    except NablaError as error:
        message = error.message
    seconds = time.monotonic() - begin
    log.info(f"{variant.name}: {f'{step} failed' if step else 'done'} after {log.seconds(seconds)}")
    end = tuple(tail(record, _SHOWN)) if step else ()
    return Outcome(variant.name, variant.summary, step, message, round(seconds, 1), record.name, end)


def clone(root: Path) -> None:
    """Make `root` a clean clone of this checkout, including uncommitted changes; keep the outputs in it."""
    git = ["git", "-c", "safe.directory=*"]
    if not (root / ".git").exists():
        files.remove(root)
        run([*git, "clone", "--quiet", "--shared", ROOT, root])
    head = run([*git, "-C", ROOT, "rev-parse", "HEAD"]).stdout.strip()
    run([*git, "-C", root, "checkout", "--quiet", "--force", "--detach", head])
    run([*git, "-C", root, "clean", "--quiet", "-ffd"])
    listed = run([*git, "-C", ROOT, "ls-files", "-z", "--modified", "--others", "--exclude-standard", "--deduplicate"])
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, root / name
        if source.is_file():
            files.make_folder(target.parent)
            shutil.copy(source, target)
        else:
            files.remove(target)


def write(title: str, outcomes: list[Outcome]) -> Path:
    """Write the page and the data; return the path of the page."""
    # Imported when needed: every doit lists the tasks.
    from nabla.policy import header

    environment = header.environment(Path(__file__).with_name("templates")).overlay(autoescape=True)
    page = environment.get_template("matrix.html.j2").render(
        title=title, outcomes=outcomes, longest=max(each.seconds for each in outcomes), time=log.seconds
    )
    files.write(FOLDER / "results.json", json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")
    files.write(FOLDER / "index.html", page)
    return FOLDER / "index.html"
