# SPDX-License-Identifier: Apache-2.0
"""A release as built passes verification, and boots."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.core import manifest
from nabla.core.paths import IMAGES, ROOT
from nabla.release import assembly, signing
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release import consistency, files, layout, signatures, statement
from verify.release.rebuild import summary

from .copies import SMALL, Copy, Keys


def test_passes_what_is_documented_for_strangers(built: Path, tmp_path: Path) -> None:
    """The exact lines of the documentation, with the tools that they name and no code of nabla."""
    text = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
    (script,) = [block for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S) if "ssh-keygen" in block]
    variables = {**os.environ, "SIGNERS": str(built / layout.SIGNERS), "WORK": str(tmp_path), "LC_ALL": "C"}
    result = subprocess.run(["sh", "-c", script], cwd=built, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "statement.json").read_text())["predicateType"].startswith("https://slsa.dev/")
    assert "Signature Verified Successfully" in result.stdout


def test_passes(built: Path) -> None:
    """With the key inside: the user who runs the tests may have signed with keys other than the default ones."""
    words = [sys.executable, "-m", "verify.release", "--json", "--trust-embedded-key", str(built)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads(result.stdout)
    assert [row["check"] for row in rows][-len(consistency.CHECKS) :] == list(consistency.CHECKS)
    assert "anybody may have made this release" in result.stderr


def test_summary(built: Path, forger: Keys, tmp_path: Path) -> None:
    """The verifier's own key signs the result; a failure does not certify anything."""
    private, public = forger
    target, signers = tmp_path / "summary.json", tmp_path / "verifiers"
    signers.write_text(f'verifier namespaces="{summary.NAMESPACE}" {public.read_text()}')
    allowed = tmp_path / "allowed"
    allowed.write_text(signing.allowed_signers(public))
    for trusted, status in ((built / layout.SIGNERS, 0), (allowed, 1)):
        words = [sys.executable, "-m", "verify.release", "--allowed-signers", str(trusted), "--summary", str(target)]
        words += ["--summary-key", str(private), str(built)]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == status, result.stdout + result.stderr
        payload, _ = signatures.open_signed(
            target.read_text(), statement.MEDIA_TYPE, "verifier", signers, summary.NAMESPACE
        )
        stated = json.loads(payload)
        predicate = stated["predicate"]
        assert predicate["verificationResult"] == ("FAILED" if status else "PASSED")
        assert predicate["verifiedLevels"] == (["FAILED"] if status else [summary.LEVEL])
        assert predicate["policy"]["digest"]["sha256"] == files.sha256(trusted)
        subjects = {each["name"]: each["digest"]["sha256"] for each in stated["subject"]}
        assert subjects[layout.SUMS] == files.sha256(built / layout.SUMS)
        assert subjects["kernel/vmlinux"] == files.sha256(built / "kernel/vmlinux")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trust-embedded-key", "--summary", "s.json"], "a summary needs a trusted signer"),
        (["--summary-key", "key"], "--summary-key KEY needs --summary FILE"),
        (["--summary", "s.json", "--summary-key", "absent"], "there is no key absent"),
    ],
)
def test_summaries_that_cannot_be_signed(words: list[str], message: str, built: Path, tmp_path: Path) -> None:
    """The verification does not begin."""
    argv = [sys.executable, "-P", "-m", "verify.release", *words, str(built)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_another_key_is_not_enough(built: Path, forger: Keys) -> None:
    allowed = forger[1].with_name("allowed")
    allowed.write_text(signing.allowed_signers(forger[1]))
    words = [sys.executable, "-m", "verify.release", "--allowed-signers", str(allowed), str(built)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "not by an allowed signer" in result.stdout


def test_no_key_at_all(built: Path, tmp_path: Path) -> None:
    """The default is the user's own key, never the one inside."""
    words = [sys.executable, "-m", "verify.release", str(built)]
    variables = {**os.environ, "NABLA_KEYS": str(tmp_path / "none")}
    result = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--allowed-signers" in result.stderr
    assert not (tmp_path / "none").exists()


def test_signing_again_gives_the_same_bytes(copy: Copy) -> None:
    before = {
        name: (copy.path(name).stat().st_mode, copy.path(name).read_bytes()) for name in assembly.digests(copy.folder)
    }
    copy.seal()
    assert {name: (copy.path(name).stat().st_mode, copy.path(name).read_bytes()) for name in before} == before
    assert before.keys() == assembly.digests(copy.folder).keys()


def test_files_of_a_release_have_one_date(built: Path) -> None:
    assert {int(status.st_mtime) for _, status in manifest.entries(built)} == {SOURCE_DATE_EPOCH}


def test_images_are_what_was_built(built: Path, tmp_path: Path) -> None:
    """Decompressed by a program other than the checker's."""
    raw = tmp_path / "image"
    assert not consistency.decompress(built / "images" / f"{SMALL}.ext3.zst", raw)
    assert raw.read_bytes() == (IMAGES / f"{SMALL}.ext3").read_bytes()


def test_launcher_finds_the_released_kernel(built: Path, tmp_path: Path) -> None:
    """The VM boots with nothing but the contents of the release."""
    raw = tmp_path / "image"
    assert not consistency.decompress(built / "images" / f"{SMALL}.ext3.zst", raw)
    words: list[str | Path] = [
        built / "bin" / "nabla-run",
        "--ephemeral",
        raw,
        "--",
        "sh",
        "-c",
        "echo from the release; exit 7",
    ]
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (7, "from the release\n"), result.stderr
