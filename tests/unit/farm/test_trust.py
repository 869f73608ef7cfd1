# SPDX-License-Identifier: Apache-2.0
"""Membership in a farm, the messages that members may send, and the errors of the command line."""

from __future__ import annotations

import datetime
import pickle
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509

from nabla.core.errors import ConfigError
from nabla.farm import certificates, identity, protocol, settings
from tests.unit.farm.conftest import Farm, repository


@pytest.mark.slow
def test_strangers_are_refused(farm: Farm) -> None:
    """A foreign authority, in both directions; a scheduler without TLS; no scheduler. One line each."""
    scheduler, client = farm.machine("scheduler", "scheduler"), farm.machine("client", "client")
    farm.scheduler(scheduler)
    foreign = farm.base / "foreign"
    certificates.create(foreign)
    stranger = farm.machine("stranger", "worker", foreign)
    words = ["farm:worker", farm.address(scheduler)]
    root = stranger.base / "checkout"
    output = stranger.doit(root, *words, status=2)
    assert "certificate that is not valid here" in output and output.count("error: ") == 1, output
    # It does not check the scheduler, which refuses it.
    own = stranger.home / ".config/nabla/farm"
    shutil.copy(farm.keys / "ca.pem", own / "ca.pem")
    output = stranger.doit(root, *words, status=2)
    assert "was not issued by" in output and output.count("error: ") == 1, output
    output = farm.client(client, scheduler, "own").end(status=2)
    assert "there is no worker" in output and output.count("error: ") == 1, output
    checkout = client.base / "checkout"
    output = client.doit(checkout, "--farm", f"tcp://{scheduler.address}", "own", status=2)
    assert "farms require TLS" in output and output.count("error: ") == 1, output
    output = client.doit(checkout, "--farm", f"tls://{scheduler.address}:1", "own", status=2)
    assert "cannot be reached: Connection refused" in output and output.count("error: ") == 1, output
    code = "import socket; s = socket.create_server(('', 7777)); print('ready', flush=True); "
    code += "s.accept()[0].send(b'hello\\r\\n' * 9)"
    with scheduler.popen(sys.executable, "-c", code) as plain:
        assert plain.stdout is not None and plain.stdout.readline() == "ready\n"
        output = client.doit(checkout, "--farm", f"tls://{scheduler.address}:7777", "own", status=2)
        assert "does not use TLS" in output and output.count("error: ") == 1, output


@pytest.mark.slow
def test_members_send_no_code(farm: Farm, tmp_path: Path) -> None:
    """A client with a certificate cannot run its own function, on no worker and on no scheduler."""
    scheduler, client = farm.machine("scheduler", "scheduler"), farm.machine("client", "client")
    farm.scheduler(scheduler)
    worker = farm.worker(farm.machine("worker", "worker"), scheduler)
    target = farm.base / "harm"
    target.mkdir()
    target.chmod(0o777)
    hostile = farm.base / "hostile.py"
    hostile.write_text(HOSTILE.format(address=farm.address(scheduler), target=target))
    output = client.run("env", f"PYTHONPATH={client.base}/checkout", sys.executable, hostile)
    assert output.count("refused") == 4, output
    assert list(target.iterdir()) == []
    assert worker.process.poll() is None and farm.roles[0].process.poll() is None
    # The farm still works.
    assert "worker: 2 slots" in client.doit(client.base / "checkout", "farm:status", farm.address(scheduler))


HOSTILE = """
import os
import dask
dask.config.set({{"distributed.comm.timeouts.connect": "5s"}})
from distributed import Client
from nabla.farm import settings
client = Client("{address}", security=settings.security("client"), timeout=10)
attempts = {{
    "task": lambda: client.submit(os.mkdir, "{target}/task").result(timeout=10),
    "run": lambda: client.run(os.mkdir, "{target}/run"),
    "scheduler": lambda: client.run_on_scheduler(os.mkdir, "{target}/scheduler"),
    "evaluated": lambda: client.submit(eval, "__import__('os').mkdir('{target}/eval')").result(timeout=10),
}}
for name, attempt in attempts.items():
    try:
        attempt()
    except BaseException as error:
        print(name, "refused", type(error).__name__, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "nabla.core.files.remove"])
def test_only_known_objects_are_loaded(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    data = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    data += b"\x8c" + bytes([len(attribute)]) + attribute.encode() + b"\x93."
    assert pickle.loads(data)
    with pytest.raises(protocol.RefusedError, match=name):
        protocol.restricted_loads(data)


def test_run_needs_a_worker() -> None:
    with pytest.raises(RuntimeError, match="is not a worker"):
        protocol.run("{}")


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are created once, and private; an expired or early certificate names the clock."""
    folder = tmp_path / "the keys"
    created = certificates.create(folder)
    assert len(created) == 8 and certificates.create(folder) == []
    assert all((folder / f"{name}.key").stat().st_mode & 0o077 == 0 for name in ("ca", *certificates.ROLES))
    for role in certificates.ROLES:
        credentials = certificates.find(folder, role)
        certificate = x509.load_pem_x509_certificate(credentials.certificate.read_bytes())
        assert role in certificate.subject.rfc4514_string()
    year, now = datetime.timedelta(days=366), certificates.now
    monkeypatch.setattr(certificates, "now", lambda: now() - 2 * year)
    with pytest.raises(ConfigError, match="is not valid before"):
        certificates.find(folder, "worker")
    monkeypatch.setattr(certificates, "now", lambda: now() + 3 * year)
    with pytest.raises(ConfigError, match="was valid until"):
        certificates.find(folder, "worker")
    (folder / "worker.pem").unlink()
    with pytest.raises(ConfigError, match=r"worker\.pem is missing"):
        certificates.find(folder, "worker")


def test_addresses() -> None:
    assert settings.address("host") == "tls://host:8786"
    assert settings.address("tls://10.0.0.1:99") == "tls://10.0.0.1:99"
    assert settings.address("[::1]:5") == "tls://[::1]:5"
    for wrong in ("tcp://host:1", "http://host", "", "tls://", "host:port", "tls://a/b"):
        with pytest.raises(ConfigError):
            settings.address(wrong)


def test_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and closes the connection is named."""
    certificates.create(tmp_path / "keys")
    monkeypatch.setenv("NABLA_FARM_KEYS", str(tmp_path / "keys"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        with pytest.raises(ConfigError) as caught:
            settings.preflight(f"tls://127.0.0.1:{server.getsockname()[1]}", "client")
    assert "\n" not in caught.value.message


def test_changed_data(tmp_path: Path) -> None:
    """Changed, new and removed data arrive in another checkout; nothing outside of the folders of data is written."""
    root = repository(tmp_path / "one")
    other = tmp_path / "two"
    identity.clone(other, identity.commit(root), root)
    (root / "kernel-config/input").unlink()
    (root / "recipes/new").mkdir()
    (root / "recipes/new/recipe.toml").write_text("name")
    (root / "README.md").write_text("irrelevant")
    paths = identity.changes(root)
    assert paths == ["kernel-config/input", "recipes/new/recipe.toml"]
    identity.write_changes(paths, tmp_path / "changes", root)
    identity.apply_changes(tmp_path / "changes", other)
    assert not (other / "kernel-config/input").exists()
    assert (other / "recipes/new/recipe.toml").read_text() == "name"
    identity.clone(other, identity.commit(root), root)
    assert (other / "kernel-config/input").exists() and not (other / "recipes/new").exists()


@pytest.mark.parametrize("name", ["nabla/core/log.py", "../escaped", "recipes/../../escaped", "dodo.py"])
def test_data_stay_in_their_folders(tmp_path: Path, name: str) -> None:
    changes, root = tmp_path / "changes", tmp_path / "root"
    (changes / "changed").mkdir(parents=True)
    (root / "nabla/core").mkdir(parents=True)
    (changes / "removed").write_text(f"{name}\n")
    with pytest.raises(ConfigError, match="outside of the folders of data"):
        identity.apply_changes(changes, root)
    (changes / "removed").write_text("")
    if ".." not in name:
        (changes / "changed" / name).parent.mkdir(parents=True, exist_ok=True)
        (changes / "changed" / name).write_text("harm")
        with pytest.raises(ConfigError, match="outside of the folders of data"):
            identity.apply_changes(changes, root)
        assert not (root / name).exists()


@pytest.mark.slow
def test_without_the_packages(farm: Farm, tmp_path: Path) -> None:
    """Everything else works without the farm's packages; the farm's commands name what is missing."""
    client = farm.machine("client", "client")
    packages = farm.base / "packages"
    packages.mkdir(mode=0o755)
    for path in Path(pytest.__file__).parent.parent.iterdir():
        if path.name.partition("-")[0] not in ("distributed", "dask") and not path.name.endswith(".pth"):
            (packages / path.name).symlink_to(path)
    root = client.base / "checkout"
    words = ["env", f"PYTHONPATH={root}:{packages}", sys.executable, "-S", "-m", "doit"]
    assert "5 done" in client.run(*words, "last", cwd=root)
    address = "tls://127.0.0.1:8786"
    for command in (["-n", "2", "--farm", address, "own"], ["farm:worker", address], ["farm:scheduler"]):
        output = client.run(*words, *command, cwd=root, status=2)
        assert output.count("error: ") == 1 and "./doit.sh farm:install" in output, output
