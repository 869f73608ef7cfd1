# SPDX-License-Identifier: Apache-2.0
"""The release of this checkout, and the same release by another publisher, attested from three environments."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.commands import attest, cache_keys
from nabla.core.artifacts import PACKAGE_KEY, REFERENCE_REPOSITORY
from nabla.core.errors import NablaError, VerifyError
from nabla.core.paths import relative
from nabla.engine import result_cache
from nabla.engine.action import log_path
from nabla.packages import apk
from nabla.release import rebuild, signing
from nabla.sandbox import variation
from tests.conftest import ROOT
from verify.release import files, layout, tools, trust
from verify.release import statement as release_statement
from verify.release.rebuild import adb, threshold
from verify.release.rebuild.threshold import Vote
from verify.release.tools import Tools

from .copies import SMALL, Copy, Keys, link, make_key

# These are signed again with another RSA key, which takes a second for each megabyte.
LARGE = 500_000
RESIGNED = ("zlib-1", "zlib-dev", "less-", "zstd-libs")

# Compares a rebuild and signs, in a separate process.
SIGN = """
import sys
from pathlib import Path
from nabla.commands import attest
from nabla.release import rebuild
from verify.release.rebuild import threshold
release, own, name, key = sys.argv[1:]
stated, provenance = attest._read(Path(release))
target = threshold.folder_of(Path(release)) / f"{name}.json"
rebuild.write(rebuild.compare(Path(release), Path(own)), stated, provenance, name, Path(key), target, "built")
"""
HERE: tuple[list[str], dict[str, str]] = ([], {})
ANOTHER_HOST = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-uts", "--hostname", "elsewhere"]
ANOTHER_HOST += ["--unshare-net", "--dev-bind", "/", "/"]
# Name -> a command that starts commands, and further variables.
ENVIRONMENTS = {
    "alice": HERE,
    "bob": ([], {**variation.OUTSIDE_ENVIRONMENT, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}),
    "carol": (["sh", "-c", 'umask 077; exec "$@"', "sh", *ANOTHER_HOST], {"LC_ALL": "C", "TZ": "Pacific/Apia"}),
}


def _resign(copy: Copy, used: Tools, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign packages and index with another key, and update the documents."""
    monkeypatch.setenv("NABLA_KEYS", str(folder / "other keys"))
    private, public = apk.ensure_key()
    before = {path: _digests(copy.path(path)) for path in _documented(copy)}
    sizes = {path: copy.path(path).stat().st_size for path in before}
    names = [name for name in copy.apks() if name.startswith(RESIGNED)]
    for name in names:
        (folder / name).write_bytes(copy.path(f"{layout.REPOSITORY}/{name}").read_bytes())
        _apk(used, folder, private, "adbsign", "--allow-untrusted", "--reset-signatures", name)
        copy.replace(f"{layout.REPOSITORY}/{name}", (folder / name).read_bytes())
    _index(copy, used, folder, private)
    copy.replace(layout.PACKAGE_KEY, public.read_bytes())
    for document in (layout.SPDX, layout.CYCLONEDX, layout.REPORT):
        text = copy.path(document).read_text()
        for path, digests in before.items():
            for old, new in zip(digests, _digests(copy.path(path)), strict=True):
                text = text.replace(old, new)
            text = text.replace(f'data-sort="{sizes[path]}"', f'data-sort="{copy.path(path).stat().st_size}"')
        text = re.sub("urn:uuid:[0-9a-f]{8}", "urn:uuid:12345678", text)
        copy.replace(document, text.encode())
    copy.seal()


def _digests(path: Path) -> tuple[str, str]:
    return files.sha256(path), files.sha512(path)


def _index(copy: Copy, used: Tools, folder: Path, private: Path) -> None:
    """Write the index again."""
    names = [f"/repository/{name}" for name in copy.apks()]
    _apk(used, folder, private, "mkndx", "--allow-untrusted", "-o", "index", *names, repository=copy)
    copy.replace(layout.INDEX, (folder / "index").read_bytes())


def _documented(copy: Copy) -> list[str]:
    return [*(f"{layout.REPOSITORY}/{name}" for name in copy.apks()), layout.INDEX, layout.SPDX, layout.CYCLONEDX]


def _apk(used: Tools, folder: Path, private: Path, *words: str, repository: Copy | None = None) -> None:
    binds = {"/keys": private.parent}
    if repository is not None:
        binds["/repository"] = repository.path(layout.REPOSITORY)
    argv = ["/sbin/apk", words[0], "--sign-key", f"/keys/{PACKAGE_KEY}", *words[1:]]
    result = tools.run(used.apk, argv, binds, folder)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def small(signed: Path, released: Path, signer: Keys, tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release without large packages, whose forms would take long."""
    folder = tmp_path_factory.mktemp("small")
    target = released / "small"
    link(signed, target)
    copy = Copy(target, signer)
    for name in copy.apks():
        if copy.path(f"{layout.REPOSITORY}/{name}").stat().st_size > LARGE:
            copy.path(f"{layout.REPOSITORY}/{name}").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_KEYS", str(folder / "keys"))
        _index(copy, tools, folder, apk.ensure_key()[0])
    copy.seal()
    return target


@pytest.fixture(scope="module")
def foreign(
    small: Path, released: Path, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Keys]]:
    """The release as another publisher would have built it, with different keys for everything."""
    folder = tmp_path_factory.mktemp("publisher")
    keys = make_key(folder)
    target = released / "foreign"
    link(small, target)
    copy = Copy(target, keys)
    copy.replace(layout.SIGNERS, signing.allowed_signers(keys[1]).encode())
    with pytest.MonkeyPatch.context() as patch:
        _resign(copy, tools, folder, patch)
    yield target, keys


@pytest.fixture(scope="module")
def attested(foreign: tuple[Path, Keys], small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of signers; three people have compared this checkout's release with it."""
    folder = tmp_path_factory.mktemp("attested")
    lines = []
    for name, (prefix, variables) in ENVIRONMENTS.items():
        (folder / name).mkdir()
        private, public = make_key(folder / name)
        lines.append(f'{name} namespaces="nabla-rebuild" {public.read_text()}')
        words = [*prefix, sys.executable, "-c", SIGN, str(foreign[0]), str(small), name, str(private)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    signers = folder / "signers"
    signers.write_text("".join(lines))
    return signers


def test_forms_equal_the_unsigned_packages_of_apk(built: Path) -> None:
    """The real apk removes signatures, and nabla's forms are those of its result."""
    reference = REFERENCE_REPOSITORY.path
    names = [path for path in sorted(reference.iterdir()) if path.stat().st_size < LARGE]
    assert len(names) > 20
    for path in names:
        assert adb.unsigned_sha256(built / layout.REPOSITORY / path.name) == adb.unsigned_sha256(path), path.name


def _count(release: Path, signers: Path, folder: Path) -> list[Vote]:
    seen = trust.examine_bytes(release, release / layout.SIGNERS)
    assert seen.stated is not None and seen.public is not None
    return threshold.count(release, seen.files, seen.stated, seen.public, signers, folder)


def test_three_environments_and_a_liar(foreign: tuple[Path, Keys], attested: Path, tmp_path: Path) -> None:
    """All confirm the release, though the publisher's keys differ from theirs; then Carol copies Alice's statement."""
    release, _ = foreign
    votes = _count(release, attested, threshold.folder_of(release))
    assert [(vote.signer, vote.problem) for vote in votes] == [(name, "") for name in ENVIRONMENTS]
    assert threshold.problems(votes, 3) == ()
    for name in ENVIRONMENTS:
        text = (threshold.folder_of(release) / f"{name}.json").read_text()
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "carol.json").write_bytes((tmp_path / "alice.json").read_bytes())
    first, reason = threshold.problems(_count(release, attested, tmp_path), 3)
    assert first == "2 of 3 signers built it again with equal results"
    assert reason.startswith("carol: no allowed signer carol signed it")


def test_command_line(copy: Copy, attested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both options belong together; a damaged release is not examined further."""
    for words in (
        ["--threshold", "2"],
        ["--signers", str(attested)],
        ["--threshold", "-1", "--signers", str(attested)],
        ["--threshold", "0"],
        ["--threshold", "0", "--signers", str(attested)],
        ["--attestations", str(attested.parent)],
    ):
        assert trust.main(["--trust-embedded-key", *words, str(copy.folder)]) == 2
        assert "belong together" in capsys.readouterr().err
    for word in ("--root", "--state"):
        assert trust.main(["--trust-embedded-key", word, str(attested), str(copy.folder)]) == 2
        assert "hint: add --fresh URL" in capsys.readouterr().err
    words = ["--trust-embedded-key", "--threshold", "2", "--signers", str(attested), str(copy.folder)]
    copy.flip("kernel/vmlinux")
    assert trust.main(words) == 1
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rebuilds"))
    assert "not checked, because an earlier check failed" in row


def test_other_bytes_are_found(small: Path, released: Path, signer: Keys, foreign: tuple[Path, Keys]) -> None:
    """A rebuild with another kernel and another package; the earliest of them is named."""
    link(small, released / "other")
    copy = Copy(released / "other", signer)
    name = next(name for name in copy.apks() if name.startswith("zlib-1"))
    other = next(name for name in copy.apks() if name.startswith("zlib-dev"))
    copy.replace("kernel/vmlinux", copy.path("kernel/vmlinux").read_bytes() + b"\0")
    copy.replace(f"{layout.REPOSITORY}/{name}", copy.path(f"{layout.REPOSITORY}/{other}").read_bytes())
    copy.seal()
    result = rebuild.compare(foreign[0], copy.folder)
    assert {"kernel/vmlinux", f"{layout.REPOSITORY}/{name}"} <= result.different.keys()
    # The documents contain the digests of both.
    assert {*result.different} - {"kernel/vmlinux", f"{layout.REPOSITORY}/{name}"} <= {
        *(layout.SPDX, layout.CYCLONEDX, layout.REPORT)
    }
    inputs = attest._inputs()
    assert rebuild.first_different_artifact(result.different, inputs) == f"{layout.REPOSITORY}/{name}"
    assert "kernel/vmlinux" in inputs[layout.OCI_ARCHIVE]
    assert f"images/{SMALL}.ext3.zst" in inputs[layout.SPDX]
    assert rebuild.first_different_artifact([layout.SPDX, layout.OCI_ARCHIVE, "kernel/vmlinux"], inputs) == (
        "kernel/vmlinux"
    )


def test_a_difference_is_explained(copy: Copy) -> None:
    """diffoscope shows the first file that differs, and the first input is named if there is one."""
    copy.replace("licenses.md", copy.path("licenses.md").read_bytes() + b"one more line\n")
    stated = copy.statement()
    clean = release_statement.Statement(
        stated.version, {}, tuple(dataclasses.replace(each, modified=False) for each in stated.dependencies)
    )
    result = rebuild.Comparison({}, {}, {"licenses.md": "f" * 64})
    text = attest._explain(result, copy.folder, clean)
    report = log_path("attest").with_suffix(".diff")
    assert text.splitlines()[1] == f"differences: {relative(report)}"
    assert "-one more line" in report.read_text()
    modified = any(each.modified for each in stated.dependencies)
    assert text.startswith(
        "first differing input: " if modified else "no locked input differs: licenses.md is the first"
    )
    fewer = dataclasses.replace(clean, dependencies=clean.dependencies[1:])
    assert attest._explain(result, copy.folder, fewer).startswith(
        f"first differing input: {clean.dependencies[0].name}"
    )
    alone = rebuild.Comparison({}, {}, {"bin/other": ""})
    assert attest._explain(alone, copy.folder, clean).endswith("bin/other is in one of both alone")


def test_damaged_packages_have_no_form(copy: Copy, tmp_path: Path) -> None:
    name = next(name for name in copy.apks() if name.startswith("zlib-1"))
    data = copy.path(f"{layout.REPOSITORY}/{name}").read_bytes()
    index = copy.path(layout.INDEX).read_bytes()
    file = tmp_path / "damaged"
    wrong = {
        "": "not a file of apk 3",
        "ADB": "not a file of apk 3",
        "ADBc\x01\x01xxxx": "not a file of apk 3",
        "ADB.pckg\x01": "damaged",
        "ADB.pckg\x01\x00\x00\x00": "smaller than its head",
        "ADB.pckg\xff\xff\xff\x3f": "ends too early",
        "ADB.indx\xff\xff\xff\x3f": "too large",
        "ADB.indx\x0c\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xef\x00\x00\x00\x00": "damaged",
        "ADB.indx\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00": "unexpected structure",
    }
    cases = [(text.encode("latin-1"), reason) for text, reason in wrong.items()]
    cases += [(data[: len(data) // 2], "ends too early"), (data + b"x", "behind the end")]
    cases += [(b"ADBd" + b"\xff" * 100, "damaged"), (index[:-100], "ends too early")]
    for content, reason in cases:
        file.write_bytes(content)
        with pytest.raises(adb.AdbError, match=reason):
            adb.unsigned_sha256(file)


def test_releases_that_cannot_be_attested(copy: Copy, built: Path, tmp_path: Path) -> None:
    def refusal(*words: str) -> str:
        with pytest.raises(NablaError) as caught:
            attest.attest("alice", "", list(words))
        return caught.value.message

    assert refusal() == "one release must be named"
    assert refusal("a", "b") == "one release must be named"
    assert refusal(str(tmp_path)) == f"{tmp_path} is not a release"
    stated = copy.statement()
    copy.flip("kernel/vmlinux")
    assert refusal(str(copy.folder)) == "the release is damaged: kernel/vmlinux has another sum"
    copy.flip("kernel/vmlinux")
    with pytest.raises(NablaError, match="own release"):
        attest._check_checkout(built, stated, built)
    for dependencies, reason in (
        ((), "belongs to no commit"),
        ((release_statement.Dependency(release_statement.REPOSITORY, "gitCommit", "f" * 40),), "to commit ffff"),
    ):
        with pytest.raises(NablaError, match=reason):
            attest._check_checkout(copy.folder, release_statement.Statement(stated.version, {}, dependencies), built)


def test_signers_are_checked_before_the_build(copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NABLA_KEYS", str(tmp_path))
    with pytest.raises(NablaError, match="cannot name a signer"):
        attest._signer(copy.folder, "two words")
    name, private = attest._signer(copy.folder, "alice")
    assert (name, private.parent) == ("alice", tmp_path)
    copy.replace(layout.SIGNERS, signing.allowed_signers(signing.ensure_key()[1]).encode())
    with pytest.raises(NablaError, match="your key signed the release itself"):
        attest._signer(copy.folder, "alice")


def test_results_of_others_are_no_rebuild(cache: Path, tmp_path: Path) -> None:
    """One result of this checkout in the cache came from a store."""
    attest._check_results()
    key = min(cache_keys.keys())
    (tmp_path / "result").write_text("x")
    manifest = result_cache.add(key, "a result", {"installed": tmp_path / "result"}) / "manifest.json"
    taken = {**json.loads(manifest.read_text()), "origin": {"store": "http://x", "signer": "eve"}}
    manifest.write_text(json.dumps(taken))
    with pytest.raises(VerifyError, match="eve signed it in http://x"):
        attest._check_results()
