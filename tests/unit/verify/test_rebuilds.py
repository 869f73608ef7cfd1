# SPDX-License-Identifier: Apache-2.0
"""Statements of rebuilds: the signers of a small release that count, and everything that must not count."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope

from nabla.core import digest
from nabla.release import assembly, rebuild, signing
from nabla.release.rebuild import RebuildError
from tests.integration.release.copies import Keys, make_key
from verify.release import layout, signatures, trust
from verify.release.rebuild import statement, threshold
from verify.release.rebuild.statement import MEDIA_TYPE, NAMESPACE, Rebuild
from verify.release.rebuild.threshold import Vote
from verify.release.statement import REPOSITORY, Dependency, Statement
from verify.release.trust import Bytes

COMMIT = "0123456789abcdef" * 2 + "01234567"
DEPENDENCIES = (Dependency(REPOSITORY, "gitCommit", COMMIT), Dependency("toolchain/base.lock", "sha256", "e" * 64))
CONTENT = {"bin/nabla-run": b"launcher", "kernel/vmlinux": b"kernel", "licenses.md": b"texts"}
NAMES = ("alice", "bob", "carol", "mallory")


@dataclass
class Signed:
    """A release, its publisher, and the keys of people who build it again."""

    folder: Path
    publisher: Keys
    keys: dict[str, Keys]
    signers: Path
    statements: Path

    def seen(self) -> Bytes:
        return trust.examine_bytes(self.folder, self.folder / layout.SIGNERS)

    def votes(self) -> list[Vote]:
        seen = self.seen()
        assert seen.stated is not None and seen.public is not None
        return threshold.count(self.folder, seen.files, seen.stated, seen.public, self.signers, self.statements)

    def attest(self, name: str, own: Path | None = None, **options: Any) -> Path:
        """Compare with a rebuild, by default one of the same bytes, and sign as a person."""
        seen = self.seen()
        assert seen.stated is not None
        target = self.statements / f"{options.get('file', name)}.json"
        result = rebuild.compare(self.folder, own or self.folder)
        private = self.keys[options.get("key", name)][0]
        rebuild.write(result, seen.stated, seen.files[layout.STATEMENT], name, private, target, "built")
        return target

    def read(self, name: str) -> Rebuild:
        return statement.read(signatures.payload((self.statements / f"{name}.json").read_text()))

    def sign(self, name: str, payload: bytes, kind: str = MEDIA_TYPE, namespace: str = NAMESPACE) -> None:
        """Replace a person's statement, signed by the person."""
        text = signing.seal_by_ssh(payload, kind, self.keys[name][0], namespace)
        (self.statements / f"{name}.json").write_text(text)

    def lie(self, **fields: Any) -> None:
        """Let Mallory sign other content, in the right form."""
        self.lie_data(lambda data: None, **fields)

    def lie_data(self, change: Callable[[Any], object], **fields: Any) -> None:
        """Let Mallory sign other JSON data."""
        data = statement.form(dataclasses.replace(self.read("mallory"), **fields))
        change(data)
        self.sign("mallory", (digest.canonical(data) + "\n").encode())

    def envelope(self, change: Callable[[Any], object]) -> None:
        """Change the envelope of Mallory's statement without signing it."""
        path = self.statements / "mallory.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(digest.canonical(data) + "\n")

    def write(self, data: bytes) -> None:
        (self.statements / "mallory.json").write_bytes(data)

    def allow(self, *lines: tuple[str, str, str]) -> None:
        """Write the file of signers from (name, options, name of the key)."""
        self.signers.write_text(
            "".join(f"{name} {options} {self.keys[key][1].read_text()}" for name, options, key in lines)
        )


def make_release(folder: Path, publisher: Keys, version: str = "1.2.3", content: dict[str, bytes] = CONTENT) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "keys").mkdir(exist_ok=True)
    (folder / layout.SIGNERS).write_text(signing.allowed_signers(publisher[1]))
    assembly.seal(version, DEPENDENCIES, publisher[0], folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A release and statements of four people."""
    base = tmp_path_factory.mktemp("rebuilds")
    keys = {}
    for name in (*NAMES, "publisher"):
        (base / name).mkdir()
        keys[name] = make_key(base / name)
    folder = make_release(base / "releases" / "1.2.3", keys["publisher"])
    signed = Signed(folder, keys["publisher"], keys, base / "signers", threshold.folder_of(folder))
    signed.allow(*((name, f'namespaces="{NAMESPACE}"', name) for name in (*NAMES, "publisher")))
    for name in NAMES:
        signed.attest(name)
    return signed


@pytest.fixture
def signed(prepared: Signed, tmp_path: Path) -> Signed:
    """Its statements by Alice, Bob and Mallory, to tamper with."""
    statements = tmp_path / "attestations"
    shutil.copytree(prepared.statements, statements)
    (statements / "carol.json").unlink()
    signers = Path(shutil.copy(prepared.signers, tmp_path / "signers"))
    return dataclasses.replace(prepared, statements=statements, signers=signers)


def test_three_of_three(signed: Signed) -> None:
    votes = signed.votes()
    assert [(vote.signer, vote.problem) for vote in votes] == [("alice", ""), ("bob", ""), ("mallory", "")]
    assert threshold.problems(votes, 3) == ()
    assert threshold.problems(votes, 4)[0] == "3 of 4 signers built it again with equal results"
    assert threshold.summary(votes) == "rebuilt by alice, bob, mallory"


def test_openssh_and_intoto_accept_a_statement(signed: Signed, tmp_path: Path) -> None:
    """Without nabla's code: ssh-keygen checks the signature of DSSE's encoding, in-toto's library the statement."""
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]

    envelope = json.loads((signed.statements / "alice.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    kind = envelope["payloadType"]
    data = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    words = ["-n", NAMESPACE, "-I", "alice", "-f", signed.signers, "-s", tmp_path / "signature"]
    subprocess.run(["ssh-keygen", "-Y", "verify", *map(str, words)], input=data, check=True, capture_output=True)
    stated = Parse(payload, statement_pb2.Statement())
    assert {each.name for each in stated.subject} == {*CONTENT, layout.STATEMENT}


def test_another_publisher_of_the_same_bytes(signed: Signed, tmp_path: Path) -> None:
    """A rebuild has another signer's key, sums and statement, and is equal."""
    own = make_release(tmp_path / "own", signed.keys["carol"])
    assert rebuild.compare(signed.folder, own).different == {}
    signed.attest("carol", own)
    assert len([vote for vote in signed.votes() if not vote.problem]) == 4


def test_a_difference_is_stated(signed: Signed, tmp_path: Path) -> None:
    own = make_release(tmp_path / "own", signed.keys["carol"], content={**CONTENT, "kernel/vmlinux": b"other"})
    (own / "licenses.md").unlink()
    signed.attest("carol", own)
    stated = signed.read("carol")
    assert stated.different == {"kernel/vmlinux": digest.sha256_bytes(b"other"), "licenses.md": ""}
    votes = signed.votes()
    assert threshold.problems(votes, 3) == ()
    assert "not counted: carol: the rebuild differs: kernel/vmlinux, licenses.md" in threshold.summary(votes)
    assert "carol: the rebuild differs: kernel/vmlinux, licenses.md" in threshold.problems(votes, 4)


def test_first_difference() -> None:
    release, other = Statement("1", {}, DEPENDENCIES), Statement("1", {}, DEPENDENCIES[:1])
    assert rebuild.first_different_input(release, release) == ""
    assert "toolchain/base.lock, " + "e" * 64 + " in the release, absent here" in rebuild.first_different_input(
        release, other
    )
    modified = Statement("1", {}, (dataclasses.replace(DEPENDENCIES[0], modified=True), DEPENDENCIES[1]))
    assert "differed from its commit" in rebuild.first_different_input(modified, modified)
    inputs = {"image": ["package", "kernel"], "package": ["libc"], "sbom": ["image"]}
    assert rebuild.first_different_artifact(["image", "sbom", "package"], inputs) == "package"
    assert rebuild.first_different_artifact(["sbom", "libc"], inputs) == "libc"
    assert rebuild.first_different_artifact(["a", "b"], {"a": ["b"], "b": ["a"]}) == "a"


@pytest.mark.parametrize("name", ["", "../x", "-I", "two words", "a/b", "ä"])
def test_names_of_signers(signed: Signed, name: str) -> None:
    with pytest.raises(RebuildError, match="cannot name a signer"):
        signed.attest(name, key="carol", file="carol")


def test_missing_folder(signed: Signed) -> None:
    shutil.rmtree(signed.statements)
    with pytest.raises(signatures.SignatureError, match="there is no folder"):
        signed.votes()


def _copy(signed: Signed, source: str) -> None:
    shutil.copy(signed.statements / f"{source}.json", signed.statements / "mallory.json")


def _another_release(signed: Signed) -> None:
    """A statement that was valid for an earlier release with the same files."""
    folder = make_release(signed.statements.parent / "old", signed.publisher, "1.2.2")
    dataclasses.replace(signed, folder=folder).attest("mallory")


def _own_key_as_two(signed: Signed) -> None:
    """Mallory is two people with one key."""
    signed.allow(*((name, "", name) for name in ("alice", "mallory")), ("bob", "", "mallory"))
    signed.attest("bob", key="mallory")


def _certificate(signed: Signed, name: str, serial: int) -> None:
    """A statement that a key signed with a certificate by Mallory; there can be any number for a key."""
    folder = signed.statements.parent / f"certificate {serial}"
    folder.mkdir()
    for each in signed.keys["carol"]:
        shutil.copy(each, folder)
    words = ["-q", "-s", signed.keys["mallory"][0], "-I", "x", "-z", serial, "-n", name, folder / "key.pub"]
    subprocess.run(["ssh-keygen", *map(str, words)], check=True)
    certificate = folder / "key-cert.pub"
    rebuilt = dataclasses.replace(signed.read("mallory"), signer=name)
    payload = (digest.canonical(statement.form(rebuilt)) + "\n").encode()
    signature = signing.sign(Envelope(payload, MEDIA_TYPE, {}).pae(), certificate, NAMESPACE)
    public = base64.b64decode(certificate.read_text().split()[1])
    data = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": MEDIA_TYPE,
        "signatures": [{"keyid": signatures.fingerprint(public), "sig": base64.b64encode(signature.encode()).decode()}],
    }
    (signed.statements / f"{name}.json").write_text(digest.canonical(data) + "\n")


def _one_key_with_certificates(signed: Signed) -> None:
    """Mallory gives one key two certificates, for two names."""
    names = ("mallory", "mallet")
    signed.allow(*((each, "", each) for each in ("alice", "bob")), *((n, "cert-authority", "mallory") for n in names))
    for serial, name in enumerate(reversed(names)):
        _certificate(signed, name, serial)


def _publisher(signed: Signed) -> None:
    signed.allow(("alice", "", "alice"), ("bob", "", "bob"), ("mallory", "", "publisher"))
    signed.attest("mallory", key="publisher")


def _flip(signed: Signed, at: float) -> None:
    data = bytearray((signed.statements / "mallory.json").read_bytes())
    data[int(len(data) * at)] ^= 1
    signed.write(bytes(data))


def _two_signatures(data: Any) -> None:
    data["signatures"].append({"keyid": "SHA256:x", "sig": data["signatures"][0]["sig"]})


def _payload(change: Callable[[Any], object]) -> Callable[[Signed], None]:
    """Change the payload, but not the signature."""

    def tamper(signed: Signed) -> None:
        def replace(data: Any) -> None:
            payload = json.loads(base64.b64decode(data["payload"]))
            change(payload)
            data["payload"] = base64.b64encode((digest.canonical(payload) + "\n").encode()).decode()

        signed.envelope(replace)

    return tamper


def _link(signed: Signed) -> None:
    path = signed.statements / "mallory.json"
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _fifo(signed: Signed) -> None:
    (signed.statements / "mallory.json").unlink()
    os.mkfifo(signed.statements / "mallory.json")


def _rename(signed: Signed, name: str) -> None:
    (signed.statements / "mallory.json").rename(signed.statements / f"{name}.json")


def _all(names: tuple[str, ...], options: str) -> Callable[[Signed], None]:
    lines = [(name, "" if name != "mallory" else options, name) for name in names]
    return lambda signed: signed.allow(*lines)


def _number_for_a_path(signed: Signed) -> None:
    signed.lie_data(lambda data: data.update(subject=[{"name": 1, "digest": {"sha256": WRONG}}]))


WRONG = "f" * 64
KERNEL = "kernel/vmlinux"
FORM = "does not have the format of rebuilds"
UNSIGNED = "no allowed signer mallory signed it"
# Name, change, the reason for which Mallory's or another statement does not count.
TAMPERED: list[tuple[str, Callable[[Signed], object], str]] = [
    # Lies that Mallory signs.
    ("a difference", lambda s: s.lie(different={KERNEL: WRONG}, equal=_less(s)), "the rebuild differs: kernel/vmlinux"),
    ("another form", lambda s: s.lie(equal={**s.read("mallory").equal, KERNEL: WRONG}), "the form kernel/vmlinux has"),
    ("a file left out", lambda s: s.lie(equal=_less(s)), "no form kernel/vmlinux"),
    ("a file added", lambda s: s.lie(equal={**s.read("mallory").equal, "x": WRONG}), "the release has no form x"),
    ("nothing compared", lambda s: s.lie(equal={}), "no form bin/nabla-run"),
    ("another subject", lambda s: s.lie(subjects={**s.read("mallory").subjects, KERNEL: WRONG}), "the subject kernel"),
    ("no subjects", lambda s: s.lie(subjects={}), "no subject bin/nabla-run"),
    ("an added subject", lambda s: s.lie(subjects={**s.read("mallory").subjects, "x": WRONG}), "no subject x"),
    ("another provenance", lambda s: s.lie(provenance=WRONG), "names a different provenance"),
    ("another commit", lambda s: s.lie(commit="f" * 40), "of commit ffff"),
    ("another version", lambda s: s.lie(version="1.2.4"), "about version 1.2.4"),
    ("another name inside", lambda s: s.lie(signer="alice"), "the statement is by 'alice'"),
    ("equal and different", lambda s: s.lie(different={KERNEL: WRONG}), "both equal and different"),
    ("a short digest", lambda s: s.lie(equal={**s.read("mallory").equal, KERNEL: "f" * 63}), "not a sha256"),
    ("a number for a digest", lambda s: s.lie(different={KERNEL: 0}, equal=_less(s)), "not a sha256"),
    ("no commit", lambda s: s.lie(commit="main"), "is not a commit"),
    ("control characters", lambda s: s.lie(version="1.2.3\x1b[2J"), "cannot be printed"),
    ("control characters in a path", lambda s: s.lie(different={"\x1b[2J": WRONG}), "cannot be printed"),
    ("control characters in a subject", lambda s: s.lie(subjects={"\x1b[2J": WRONG}), "cannot be printed"),
    ("a number for a path", _number_for_a_path, "cannot be printed"),
    ("another environment", lambda s: s.lie(environment={"machine": "x"}), "does not have the entries"),
    ("an earlier release", _another_release, "names a different provenance"),
    # Other formats that Mallory signs.
    ("more in the predicate", lambda s: s.lie_data(lambda d: d["predicate"].update(note="x")), FORM),
    ("a second digest", lambda s: s.lie_data(lambda d: d["subject"][0]["digest"].update(md5="0" * 32)), FORM),
    ("subjects twice", lambda s: s.lie_data(lambda d: d["subject"].append(d["subject"][0])), FORM),
    ("another predicate", lambda s: s.lie_data(lambda d: d.update(predicateType="https://slsa.dev/x")), FORM),
    ("no predicate", lambda s: s.lie_data(lambda d: d.pop("predicate")), "not a statement of a rebuild: KeyError"),
    ("a list", lambda s: s.sign("mallory", b"[]\n"), "not a statement of a rebuild: TypeError"),
    ("deep JSON", lambda s: s.sign("mallory", b"[" * 100_000), "not a statement of a rebuild: RecursionError"),
    ("spaces in the JSON", lambda s: s.sign("mallory", json.dumps(_data(s), indent=1).encode()), FORM),
    ("another type", lambda s: s.sign("mallory", _bytes(s), kind="text/plain"), "payload type is 'text/plain'"),
    ("another purpose", lambda s: s.sign("mallory", _bytes(s), namespace="file"), UNSIGNED),
    # Changes that anyone can make.
    ("a changed digest", _payload(lambda d: d["predicate"]["equal"].update({KERNEL: WRONG})), UNSIGNED),
    ("a changed name", _payload(lambda d: d["predicate"].update(signer="carol")), UNSIGNED),
    ("a second signature", lambda s: s.envelope(_two_signatures), "more than one signed payload"),
    ("no signature", lambda s: s.envelope(lambda d: d["signatures"].clear()), "more than one signed payload"),
    ("another key's name", lambda s: s.envelope(lambda d: d["signatures"][0].update(keyid="x")), "not name the key"),
    ("an unsigned note", lambda s: s.envelope(lambda d: d.update(note="x")), "more than one signed payload"),
    ("an empty file", lambda s: s.write(b""), "not a DSSE envelope"),
    ("no text", lambda s: s.write(b"\xff\xfe{}"), "codec can't decode"),
    ("deep JSON outside", lambda s: s.write(b"[" * 100_000), "not a DSSE envelope: RecursionError"),
    ("a huge file", lambda s: s.write(b" " * ((16 << 20) + 1)), "too large"),
    ("a link", _link, "not a file"),
    ("a pipe", _fifo, "not a file"),
    # Who signed.
    ("Alice's statement twice", lambda s: _copy(s, "alice"), UNSIGNED),
    ("under Carol's name", lambda s: _rename(s, "carol"), "carol: no allowed signer carol signed it"),
    ("a name with control characters", lambda s: _rename(s, "mal\x1b[2J"), "mal?[2J.json: the file's name"),
    ("a name with a space", lambda s: _rename(s, "mal lory"), "mal lory.json: the file's name"),
    ("one key, two names", _own_key_as_two, "mallory: the key of bob signed it, too"),
    ("the publisher's key", _publisher, "this key signed the release itself"),
    ("certificates", _one_key_with_certificates, "mallory has no Ed25519 key"),
    ("nobody's key", _all(("alice", "bob"), ""), UNSIGNED),
    ("an expired key", _all(("alice", "bob", "mallory"), 'valid-before="20200101"'), UNSIGNED),
    ("a key for files", _all(("alice", "bob", "mallory"), 'namespaces="file"'), UNSIGNED),
]


def _less(signed: Signed) -> dict[str, str]:
    return {path: form for path, form in signed.read("mallory").equal.items() if path != KERNEL}


def _data(signed: Signed) -> Any:
    return statement.form(signed.read("mallory"))


def _bytes(signed: Signed) -> bytes:
    return (digest.canonical(_data(signed)) + "\n").encode()


@pytest.mark.parametrize(("tamper", "reason"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_two_and_a_liar(signed: Signed, tamper: Callable[[Signed], object], reason: str) -> None:
    """Three are required: Alice's and Bob's statements do not suffice, and the reason is named."""
    tamper(signed)
    votes = signed.votes()
    first, *others = threshold.problems(votes, 3)
    assert first == "2 of 3 signers built it again with equal results"
    assert reason in "\n".join(others)
    assert threshold.problems(votes, 2) == ()


def test_damaged_base64(signed: Signed) -> None:
    """Wherever a bit is flipped, no third statement counts."""
    intact = (signed.statements / "mallory.json").read_bytes()
    for step in range(1, 40):
        signed.write(intact)
        _flip(signed, step / 40)
        assert len([vote for vote in signed.votes() if not vote.problem]) == 2, step
