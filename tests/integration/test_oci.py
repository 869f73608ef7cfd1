# SPDX-License-Identifier: Apache-2.0
"""The container image: it conforms to the OCI specification, other tools read it, its VM runs in podman under the
default seccomp profile and in a plain chroot, and its bytes are reproducible.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest

from nabla.core import digest
from nabla.core.artifacts import IMAGE_TOOLS, OCI_ARCHIVE, OCI_LAYOUT
from nabla.core.errors import CommandError
from nabla.core.paths import IMAGES, NABLA_RUN, VMLINUX, relative
from nabla.images import oci, podman_run
from nabla.images import oci_tasks as task
from nabla.images.podman_run import Podman
from verify.epoch import SOURCE_DATE_EPOCH

from .vm import status_of

MEDIA = "application/vnd.oci.image."


def call(*words: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of the host; returns status and output."""
    done = subprocess.run(
        words, input=stdin, capture_output=True, timeout=120, check=False, env={**os.environ, **(env or {})}
    )
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


def checked(*words: str | Path) -> str:
    """Run a program that must succeed; returns its output."""
    if shutil.which(str(words[0])) is None:
        pytest.fail(f"{words[0]} is missing; hint: ./doit.sh test installs it", pytrace=False)
    done = call(*words)
    assert done.returncode == 0, done
    return done.stdout


@dataclass(frozen=True)
class Layout:
    """The files of a layout, read according to the specification."""

    root: Path

    def json(self, name: str) -> Any:
        return json.loads((self.root / name).read_bytes())

    def blob(self, descriptor: dict[str, Any]) -> Path:
        """Return the file that a descriptor refers to, after a check of its size and digest."""
        algorithm, _, name = str(descriptor["digest"]).partition(":")
        path = self.root / "blobs" / algorithm / name
        data = path.read_bytes()
        assert hashlib.new(algorithm, data).hexdigest() == name
        assert len(data) == descriptor["size"]
        return path

    @property
    def manifest(self) -> Any:
        (descriptor,) = self.json("index.json")["manifests"]
        return json.loads(self.blob(descriptor).read_bytes())

    @property
    def config(self) -> Any:
        return json.loads(self.blob(self.manifest["config"]).read_bytes())

    @property
    def version(self) -> str:
        return str(self.config["config"]["Labels"]["org.opencontainers.image.version"])


@pytest.fixture(scope="module")
def layout() -> Layout:
    """The output of `doit oci`."""
    for artifact in (OCI_LAYOUT.path, OCI_ARCHIVE):
        if not artifact.exists():
            pytest.fail(f"{relative(artifact)} is missing; hint: ./doit.sh test builds it first", pytrace=False)
    return Layout(OCI_LAYOUT.path)


def test_the_layout_keeps_the_rules(layout: Layout) -> None:
    assert layout.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    index = layout.json("index.json")
    assert (index["schemaVersion"], index["mediaType"]) == (2, f"{MEDIA}index.v1+json")
    (descriptor,) = index["manifests"]
    assert descriptor["mediaType"] == f"{MEDIA}manifest.v1+json"
    assert descriptor["platform"] == {"architecture": "amd64", "os": "linux"}

    manifest, config = layout.manifest, layout.config
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, descriptor["mediaType"])
    assert manifest["config"]["mediaType"] == f"{MEDIA}config.v1+json"
    assert manifest["annotations"] == config["config"]["Labels"]
    assert (config["architecture"], config["os"], config["rootfs"]["type"]) == ("amd64", "linux", "layers")
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 1
    assert config["config"]["User"].split(":")[0] not in ("", "0", "root")

    everything = [descriptor, manifest["config"], *manifest["layers"]]
    blobs = {path for path in (layout.root / "blobs").rglob("*") if path.is_file()}
    assert blobs == {layout.blob(descriptor) for descriptor in everything}
    # For engines that only support `docker save`.
    (saved,) = layout.json("manifest.json")
    assert layout.root / saved["Config"] == layout.blob(manifest["config"])
    assert [layout.root / name for name in saved["Layers"]] == [layout.blob(manifest["layers"][0])]


def test_the_layer(layout: Layout, tmp_path: Path) -> None:
    """The three built files, owned by root, with one date; otherwise only folders."""
    (descriptor,) = layout.manifest["layers"]
    assert descriptor["mediaType"] == f"{MEDIA}layer.v1.tar+gzip"
    plain = tmp_path / "layer.tar"
    packed = layout.blob(descriptor).read_bytes()
    assert packed[4:8] == bytes(4), "gzip's header has a date"
    plain.write_bytes(zlib.decompress(packed, wbits=31))
    assert layout.config["rootfs"]["diff_ids"] == [f"sha256:{digest.sha256_file(plain)}"]
    with tarfile.open(plain) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == sorted(member.name for member in members)
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", SOURCE_DATE_EPOCH)}
        files = {}
        for member in members:
            assert member.isfile() or member.isdir()
            if member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                files[member.name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    wanted = {"nabla-run": NABLA_RUN, "vmlinux": VMLINUX, "alpine.ext3": IMAGES / "alpine.ext3"}
    assert files == {name: digest.sha256_file(path) for name, path in wanted.items()}


def test_the_archive_is_the_layout(layout: Layout, tmp_path: Path) -> None:
    with tarfile.open(OCI_ARCHIVE) as archive:
        assert {member.mtime for member in archive} == {SOURCE_DATE_EPOCH}
    checked("tar", "--extract", "--preserve-permissions", "--file", OCI_ARCHIVE, "--directory", tmp_path)
    assert digest.tree_digest(tmp_path) == digest.tree_digest(layout.root)


_BUILD = """
import sys
from pathlib import Path
from nabla.images import oci
version, layout, archive, *inputs, tools = sys.argv[1:]
oci.make(version, *map(Path, inputs), Path(layout), tools=Path(tools))
oci.archive(Path(layout), Path(archive))
"""


def test_another_build_is_the_same(layout: Layout, tmp_path: Path) -> None:
    """In another folder, with another umask, time zone, language and order of hashes."""
    copy, archive = tmp_path / "a layout", tmp_path / "archive"
    inputs = [NABLA_RUN, VMLINUX, IMAGES / "alpine.ext3", IMAGE_TOOLS.path]
    words: list[str | Path] = [sys.executable, "-c", _BUILD, layout.version, copy, archive, *inputs]
    variables = {"TZ": "<+1345>-13:45", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "4321", "NABLA_VERSION": "9.9"}
    done = subprocess.run(
        ["sh", "-c", 'umask 077; cd "$0"; exec "$@"', *map(str, (tmp_path, *words))],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digest.tree_digest(copy) == digest.tree_digest(layout.root)
    assert digest.sha256_file(archive) == digest.sha256_file(OCI_ARCHIVE)


# Other people's tools


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_skopeo(layout: Layout, form: str, tmp_path: Path) -> None:
    """skopeo reads folder and archive, the archive also as docker's, and copies them unchanged."""
    source = {"oci": f"oci:{layout.root}:{oci.NAME}:{layout.version}"}.get(form, f"{form}:{OCI_ARCHIVE}")
    seen = json.loads(checked("skopeo", "inspect", source))
    assert (seen["Architecture"], seen["Os"]) == ("amd64", "linux")
    assert seen["Labels"] == layout.config["config"]["Labels"]
    checked("skopeo", "--insecure-policy", "copy", "--quiet", source, f"dir:{tmp_path / 'copy'}")
    copied = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    assert copied["config"]["digest"] == layout.manifest["config"]["digest"]
    if form != "docker-archive":
        assert copied == layout.manifest


@pytest.fixture(scope="module")
def unpacked(layout: Layout) -> Iterator[Path]:
    """A bundle unpacked by umoci: config.json and rootfs."""
    assert checked("umoci", "ls", "--layout", layout.root).splitlines() == [f"{oci.NAME}:{layout.version}"]
    with tempfile.TemporaryDirectory(prefix="nabla-oci-") as name:
        rootless = ["--rootless"] if os.geteuid() != 0 else []
        bundle = Path(name, "bundle")
        checked("umoci", "unpack", *rootless, "--image", f"{layout.root}:{oci.NAME}:{layout.version}", bundle)
        yield bundle


def test_a_plain_chroot(unpacked: Path) -> None:
    """With nothing mounted, with the command and the user in umoci's config.json."""
    process = json.loads((unpacked / "config.json").read_bytes())["process"]
    entry = process["args"][: len(oci.ENTRY_POINT)]
    assert tuple(process["args"]) == (*oci.ENTRY_POINT, *oci.DEFAULT_COMMAND)
    change: list[str | Path]
    if os.geteuid() == 0:
        assert (process["user"]["uid"], process["user"]["gid"]) == (65534, 65534)
        change = ["chroot", "--userspec=65534:65534", unpacked / "rootfs"]
    else:
        change = ["unshare", "--map-root-user", "chroot", unpacked / "rootfs"]
        entry[1:1] = ["--run-as", "0"]
    script = "cat /etc/alpine-release; cat; exit 7"
    done = call(*change, *entry, "sh", "-c", script, stdin=b"typed\n")
    assert done.returncode == 7, done
    assert done.stdout.splitlines()[1:] == ["typed"]
    assert done.stdout.startswith("3.")


def test_a_chroot_of_root(unpacked: Path) -> None:
    """Root need not drop its privileges first: the launcher does."""
    if os.geteuid() == 0:
        done = call("chroot", unpacked / "rootfs", *oci.ENTRY_POINT, "uname", "-s")
    else:
        # Root of an ordinary user's namespace cannot become another user, and the error says so.
        done = call("unshare", "--map-root-user", "chroot", unpacked / "rootfs", *oci.ENTRY_POINT, "uname", "-s")
        assert (done.returncode, done.stdout) == (125, "")
        assert "--run-as" in done.stderr
        return
    assert (done.returncode, done.stdout) == (0, "Linux\n"), done


# Podman


@dataclass(frozen=True)
class Engine:
    """Podman with the image loaded."""

    podman: Podman
    version: str

    def run(self, *command: str, stdin: bytes = b"", options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        words = self.podman.run_argv(self.version, command, "--interactive", *options)
        return call(*words, stdin=stdin, env=dict(self.podman.env))


@pytest.fixture(scope="module")
def engine(layout: Layout) -> Iterator[Engine]:
    """Podman with options that also work where the tests themselves run in a container."""
    if shutil.which("podman") is None:
        pytest.fail("podman is missing; hint: ./doit.sh test installs it", pytrace=False)
    with tempfile.TemporaryDirectory(prefix="nabla-podman-") as name:
        podman = podman_run.restricted(Path(name))
        podman.load(OCI_ARCHIVE)
        yield Engine(podman, layout.version)


def test_a_command_in_podman(engine: Engine) -> None:
    done = engine.run("sh", "-c", "uname -a; cat /etc/alpine-release; cat; echo err >&2; exit 7", stdin=b"typed\n")
    assert done.returncode == 7, done
    system, release, typed = done.stdout.splitlines()
    assert system.startswith("Linux nabla ")
    assert release.startswith("3.")
    assert typed == "typed"
    assert "err" in done.stderr
    assert engine.run("no-such-program").returncode == 127


def test_a_root_that_is_read_only(engine: Engine) -> None:
    """The container's root and every capability may be taken away."""
    done = engine.run("sh", "-c", "echo new >/new; cat /new", options=["--read-only", "--cap-drop", "ALL"])
    assert (done.returncode, done.stdout) == (0, "new\n"), done


def test_podman_gives_its_default_profile_and_no_privilege(engine: Engine, stand_in: Path) -> None:
    """Observed through a stand-in for the kernel, which does not load its own filter."""
    entry = ["/nabla-run", "--kernel", "/stand-in", "--ephemeral", "/alpine.ext3", "--"]
    if engine.podman.one_id:
        entry[1:1] = ["--run-as", "0"]
    options = ["--volume", f"{stand_in}:/stand-in:ro", "--entrypoint", json.dumps(entry)]
    shown = engine.run("show=/proc/self/status", options=options)
    fields = dict(line.split(":\t", 1) for line in shown.stdout.splitlines())
    assert (fields["Seccomp"], fields["Seccomp_filters"], fields["NoNewPrivs"]) == ("2", "1", "1"), shown
    assert {fields[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {""}
    if not engine.podman.one_id:
        assert fields["Uid"].split() == ["65534"] * 4


def test_without_a_command(engine: Engine) -> None:
    """The guest describes itself; on a terminal it starts a shell."""
    result = engine.run()
    assert result.returncode == 0
    assert "Alpine Linux" in result.stdout.splitlines()[0]
    words = [str(word) for word in engine.podman.run_argv(engine.version, [], "--interactive", "--tty")]
    environment = os.environ | dict(engine.podman.env)
    console = pexpect.spawn(words[0], words[1:], encoding="utf-8", timeout=30, env=environment)
    console.expect_exact("# ")
    console.sendline("tty; exit 3")
    console.expect_exact("/dev/")
    assert status_of(console) == 3


def test_the_task(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`doit run:oci -- COMMAND`, with a private image store for podman."""
    storage = tmp_path / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("NABLA_VERSION", layout.version)
    with pytest.raises(CommandError, match="status 7"):
        task.run_image(["sh", "-c", "cat /etc/alpine-release; exit 7"])
    assert capfd.readouterr().out.startswith("3.")
