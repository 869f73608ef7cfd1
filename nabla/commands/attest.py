# SPDX-License-Identifier: Apache-2.0
"""Rebuild another person's release and sign a statement about the result: `doit attest RELEASE`.

The release must belong to this checkout's commit. The build uses no stores, whose results other people have built. Two
releases by different signers have different signatures; their signature-free forms are compared. The statement is
written in any case, and a difference makes the command fail.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path

from nabla.commands import cache_keys
from nabla.core import artifacts, log, process, version
from nabla.core.errors import CommandError, ConfigError, VerifyError
from nabla.core.paths import ROOT, relative
from nabla.engine import result_cache
from nabla.engine.action import log_path
from nabla.release import contents, rebuild, signing
from nabla.repro import comparison
from verify.release import layout, signatures, trust
from verify.release import statement as release_statement
from verify.release.rebuild import threshold
from verify.release.statement import Statement


def attest(signer: str, output: str, folders: list[str]) -> None:
    """Build, compare, sign. Raises `NablaError` if the release belongs to another commit, or if the rebuild differs."""
    if len(folders) != 1:
        raise ConfigError("one release must be named", "doit attest [--signer NAME] FOLDER")
    release, own = Path(folders[0]).resolve(), contents.folder().path
    stated, provenance = _read(release)
    _check_checkout(release, stated, own)
    # The build takes hours: mistakes are reported before it.
    name, private = _signer(release, signer)
    with log.step("build the release again"):
        # Outputs that are up to date may have come from a store whose results are no longer in the cache.
        words = [] if result_cache.is_reusable() else ["--always-execute"]
        argv = [sys.executable, "-m", "doit", "run", *words, "release"]
        if process.interactive(argv, cwd=ROOT, env={"NABLA_STORE": "off"}) != 0:
            raise CommandError("the release cannot be built", "see above")
    _check_results()
    result = rebuild.compare(release, own)
    folder = Path(output).resolve() if output else threshold.folder_of(release)
    target = folder / f"{name}.json"
    reused = "results of earlier builds may have been used"
    results = reused if result_cache.is_reusable() else "built for this statement"
    rebuild.write(result, stated, provenance, name, private, target, results)
    log.info(f"{target}: {len(result.equal)} files are equal, {len(result.different)} differ")
    if result.different:
        raise VerifyError(
            f"the rebuild differs from the release: {len(result.different)} files", _explain(result, release, stated)
        )


def _read(release: Path) -> tuple[Statement, str]:
    """Return a release's statement and the sha256 of its file. It need not be trusted, but must be consistent."""
    if not (release / layout.SUMS).is_file():
        raise ConfigError(f"{release} is not a release", f"a release has a file {layout.SUMS}")
    seen = trust.examine_bytes(release, release / layout.SIGNERS)
    problem = next((problem for row in seen.rows for problem in row.problems), None)
    if problem is not None or seen.stated is None:
        raise VerifyError(
            f"the release is damaged: {problem}", f"./doit.sh verify:release -- --trust-embedded-key {release}"
        )
    return seen.stated, seen.files[layout.STATEMENT]


def _signer(release: Path, name: str) -> tuple[str, Path]:
    """Return the signer's name, by default the user's, and the private key. Raises `NablaError`."""
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError) as error:
            raise ConfigError("this user has no name", "name the signer: --signer NAME") from error
    rebuild.check_signer(name)
    private, public = signing.ensure_key()
    # The release is consistent, so this file names the key that signed it.
    if signing.allowed_signers(public) == (release / layout.SIGNERS).read_text(encoding="utf-8"):
        raise ConfigError(
            "your key signed the release itself, so your statement would not count",
            "use another key: NABLA_KEYS=FOLDER",
        )
    return name, private


def _check_checkout(release: Path, stated: Statement, own: Path) -> None:
    """Check that this checkout can build a release again."""
    if release == own.resolve():
        raise ConfigError(f"{relative(own)} is this checkout's own release", "name a release by another signer")
    modified = any(each.modified for each in stated.dependencies)
    if stated.commit is None or modified:
        raise ConfigError(
            "the release belongs to no commit: its publisher's checkout had changes, or no history",
            "ask the publisher for a release of a commit",
        )
    if stated.commit != version.commit() or version.is_modified():
        raise ConfigError(
            f"the release belongs to commit {stated.commit}, and this checkout does not",
            f"git checkout {stated.commit}, without changes",
        )
    if stated.version != version.version():
        raise ConfigError(
            f"the release has version {stated.version}, this checkout {version.version()}",
            f"fetch the tag, or set NABLA_VERSION={stated.version}",
        )


def _check_results() -> None:
    """Check that all results that the release used were built here."""
    for each in sorted(cache_keys.keys()):
        folder = result_cache.find_local(each)
        if folder is not None and (origin := result_cache.origin(folder)):
            raise VerifyError(
                f"a result of the build was not built here: {origin.get('signer')} signed it in {origin.get('store')}",
                "repeat with fresh=1, which builds everything",
            )


def _explain(result: rebuild.Comparison, release: Path, stated: Statement) -> str:
    """Name the first difference and let diffoscope show it."""
    own = contents.folder().path
    text = (own / layout.STATEMENT).read_text(encoding="utf-8")
    cause = rebuild.first_different_input(stated, release_statement.read(signatures.payload(text)))
    path = rebuild.first_different_artifact(result.different, _inputs())
    if not cause:
        cause = f"no locked input differs: {path} is the first file that was built to different bytes"
    lines = [cause]
    if (release / path).exists() and (own / path).exists():
        report = log_path("attest").with_suffix(".diff")
        lines.append(comparison.diffoscope(release / path, own / path, report))
    else:
        lines.append(f"{path} is in one of both alone")
    return "\n".join(lines)


def _inputs() -> Mapping[str, set[str]]:
    """Return path in the release -> the other paths from which it was built, by the records of the tasks."""
    inside = _paths()
    makers = {output: record for record in comparison.Checkout(ROOT).records().values() for output in record.outputs}
    inputs: dict[str, set[str]] = {}
    for path, output in inside.items():
        inputs[path] = set()
        todo, seen = [output], set[str]()
        while todo:
            record = makers.get(todo.pop())
            if record is None or record.name in seen:
                continue
            seen.add(record.name)
            earlier = {comparison.output_of(each) for each in record.inputs}
            inputs[path] |= {other for other, its in inside.items() if its in earlier and other != path}
            todo += earlier
    return inputs


def _paths() -> dict[str, str]:
    """Return path in the release -> path of the output from which it was copied, relative to the checkout."""
    paths = {inner: relative(path) for inner, path in contents.files().items()}
    for target, tree in contents.FOLDERS.items():
        for path in tree.path.rglob("*"):
            if path.is_file():
                paths[f"{target}/{path.relative_to(tree.path)}"] = relative(tree.path)
    for name in artifacts.RELEASED_IMAGES:
        paths[f"images/{name}.ext3.zst"] = relative(artifacts.image_path(name))
    return paths
