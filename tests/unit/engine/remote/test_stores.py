# SPDX-License-Identifier: Apache-2.0
"""Results travel through a real nginx with DAV, a static server and a folder; a store delivers nothing else."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.core import digest, files, manifest
from nabla.engine import result_cache
from nabla.engine.remote import stores
from nabla.engine.remote.transport import StoreError
from tests.unit.engine.remote.conftest import KEY, Signer
from tests.unit.engine.remote.servers import complete_log, nginx, odd_server


def configure(path: Path, signer: Signer, *tables: str) -> Path:
    """Write a file of settings; each table is the text of one [[store]]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'allowed_signers = "{signer.allowed}"\nkey = "{signer.key}"\n'
    path.write_text(head + "".join(f"[[store]]\n{each}\n" for each in tables))
    return path


@pytest.fixture
def dav(tmp_path: Path) -> Iterator[str]:
    with nginx(tmp_path / "nginx", tmp_path / "served") as address:
        yield f"http://{address}"


def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signer: Signer, *tables: str) -> None:
    monkeypatch.setenv("NABLA_STORE_CONFIG", str(configure(tmp_path / "config" / "store.toml", signer, *tables)))


def check(folder: Path, result: dict[str, Path]) -> None:
    assert (folder / "0").read_bytes() == result["0"].read_bytes() and os.access(folder / "0", os.X_OK)
    assert manifest.manifest(folder / "1") == manifest.manifest(result["1"])


def test_nginx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    use(monkeypatch, tmp_path, signer, f'url = "{dav}/team/nabla/"\npush = true')
    assert stores.take(KEY, tmp_path / "taken") is None
    assert stores.give(KEY, "musl:build", result) == 1
    assert stores.give(KEY, "musl:build", result) == 0
    served = tmp_path / "served/team/nabla"
    assert {path.name for path in served.iterdir()} == {"ac", "cas"}
    assert all(manifest.file_sha256(path) == path.name for path in (served / "cas").iterdir())
    taken = stores.take(KEY, tmp_path / "taken")
    assert taken is not None and taken.signed.signer == "builder"
    check(tmp_path / "taken", result)


def test_any_static_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signer: Signer,
    result: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A folder is written, and Python's own server serves it; it refuses to be written, which is a warning."""
    use(monkeypatch, tmp_path, signer, f'url = "file://{tmp_path}/a%20folder"\npush = true')
    stores.give(KEY, "musl:build", result)
    log: list[str] = []
    with odd_server(tmp_path / "a folder", lambda _: False, log) as url:
        use(monkeypatch, tmp_path, signer, f'url = "{url}"\npush = true')
        assert stores.take(KEY, tmp_path / "taken") is not None
        check(tmp_path / "taken", result)
        stores.offer("cd" * 32, "musl:install", result)
    assert "warning: musl:install is not uploaded to the store: the server answered 405" in capfd.readouterr().err


def test_first_store_with_the_result_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    empty, full = f'url = "file://{tmp_path}/empty"', f'url = "{dav}"\npush = true'
    use(monkeypatch, tmp_path, signer, empty, full)
    assert stores.give(KEY, "musl:build", result) == 1
    taken = stores.take(KEY, tmp_path / "taken")
    assert taken is not None and taken.store == dav
    # An entry in one, its blobs in the other.
    files.make_folder(tmp_path / "empty")
    (tmp_path / "served/ac").rename(tmp_path / "empty/ac")
    taken = stores.take(KEY, tmp_path / "taken")
    assert taken is not None and taken.store == f"file://{tmp_path}/empty"
    check(tmp_path / "taken", result)


def test_login_and_certificates(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signer: Signer,
    result: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Mutual TLS with a private authority, and a password."""
    base = tmp_path / "tls"
    base.mkdir()
    for name, subject in (("ca", "/CN=our authority"), ("foreign", "/CN=another")):
        _openssl(
            base,
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            subject,
        )
    (base / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name, authority in (("server", "ca"), ("client", "ca"), ("guest", "foreign")):
        _openssl(
            base,
            "req",
            "-newkey",
            "ed25519",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        _openssl(
            base,
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            f"{authority}.pem",
            "-CAkey",
            f"{authority}.key",
            "-CAcreateserial",
            "-out",
            f"{name}.pem",
            "-extfile",
            "san",
        )
    (base / "users").write_text("ada:{PLAIN}secret\n")
    (base / "password").write_text("secret\n")
    server = f"""
        ssl_certificate {base}/server.pem; ssl_certificate_key {base}/server.key;
        ssl_client_certificate {base}/ca.pem; ssl_verify_client on;
        auth_basic nabla; auth_basic_user_file {base}/users;"""
    with nginx(tmp_path / "nginx", tmp_path / "served", server=server, tls="ssl") as address:
        common = f'url = "https://{address}"\npush = true\nca = "{base}/ca.pem"\n'
        login = f'user = "ada"\npassword_file = "{base}/password"\n'
        ours, foreign = (
            f'certificate = "{base}/{n}.pem"\ncertificate_key = "{base}/{n}.key"\n' for n in ("client", "guest")
        )
        use(monkeypatch, tmp_path, signer, common + login + ours)
        assert stores.give(KEY, "musl:build", result) == 1
        assert stores.take(KEY, tmp_path / "taken") is not None
        for bad, what in (
            (common + ours, "answered 401"),
            (common + login, "answered 400"),
            (common + login + foreign, "answered 400|cannot be reached|failed"),
            (common.replace("ca.pem", "foreign.pem") + login + ours, "CertificateVerificationError|SSL"),
        ):
            use(monkeypatch, tmp_path, signer, bad)
            stores._warned.clear()
            assert stores.take(KEY, tmp_path / "nothing") is None
            errors = capfd.readouterr().err
            assert errors.count("warning:") == 1 and re.search(what, errors), errors
            assert "secret" not in errors


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def test_a_transfer_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    result["0"].write_bytes(os.urandom(1 << 20))
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"\npush = true')
    stores.give(KEY, "musl:build", result)
    blob = max((tmp_path / "served/cas").iterdir(), key=lambda path: path.stat().st_size)
    part = Path(os.environ["NABLA_CACHE"]) / "partial" / f"{blob.name}.blob"
    files.write(part, blob.read_bytes()[: 1 << 19])
    assert stores.take(KEY, tmp_path / "taken") is not None
    check(tmp_path / "taken", result)
    lines = [
        line for line in (tmp_path / "nginx/access.log").read_text().splitlines() if f"GET /cas/{blob.name}" in line
    ]
    assert [line.split('"')[2].split()[0] for line in lines] == ["206"]
    # A wrong beginning costs a second transfer, but not the result.
    files.write(part, b"wrong" * 1000)
    assert stores.take(KEY, tmp_path / "taken") is not None
    check(tmp_path / "taken", result)


def test_offline_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"\npush = true')
    stores.give(KEY, "musl:build", result)
    before = complete_log(tmp_path, f"PUT /ac/{KEY}")
    monkeypatch.setenv("NABLA_OFFLINE", "1")
    assert stores.take(KEY, tmp_path / "taken") is None
    assert not stores.obtain_file("0" * 64, None, tmp_path / "file", "a file")
    stores.offer(KEY, "musl:build", result)
    assert (tmp_path / "nginx/access.log").read_text() == before
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"', f'url = "file://{tmp_path}/served"')
    assert stores.take(KEY, tmp_path / "taken") is not None, "a folder needs no connection"


def test_result_cache_takes_and_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"\npush = true')
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "first"))
    result_cache.add(KEY, "musl:build", result)
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path / "second"))
    monkeypatch.setenv("NABLA_FRESH", "1")
    assert result_cache.find(KEY) is None, "fresh=1 reuses nothing"
    monkeypatch.delenv("NABLA_FRESH")
    folder = result_cache.find(KEY)
    assert folder is not None
    check(folder, result)
    assert digest.path_digest(folder / "1") == digest.path_digest(result["1"])
    monkeypatch.setenv("NABLA_STORE", "off")
    assert result_cache.find(KEY) == folder, "it is in the cache now"


def test_a_second_build_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, dav: str, result: dict[str, Path]
) -> None:
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"\npush = true')
    stores.give(KEY, "musl:build", result)
    monkeypatch.setenv("NABLA_SAMPLE_OF", str(tmp_path / "first"))
    assert result_cache.find(KEY) is None


def test_an_entry_by_a_stranger_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, stranger: Signer, dav: str, result: dict[str, Path]
) -> None:
    use(monkeypatch, tmp_path, stranger, f'url = "{dav}"\npush = true')
    stores.give(KEY, "musl:build", result)
    use(monkeypatch, tmp_path, signer, f'url = "{dav}"\npush = true')
    assert stores.take(KEY, tmp_path / "taken") is None
    assert stores.give(KEY, "musl:build", result) == 1
    assert stores.take(KEY, tmp_path / "taken") is not None


def test_own_key_signs_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """With no setting except an address, a builder accepts its own results, and nobody else's."""
    monkeypatch.setenv("NABLA_STORE", f"file://{tmp_path}/store")
    assert stores.take(KEY, tmp_path / "taken") is None
    assert capfd.readouterr().err == "", "an absent entry does not cause a warning"
    monkeypatch.setenv("NABLA_STORE_PUSH", "1")
    assert stores.give(KEY, "musl:build", result) == 1
    assert stores.take(KEY, tmp_path / "taken") is not None
    (tmp_path / "config/store_signers").write_text("# nobody\n")
    assert stores.give("cd" * 32, "musl:install", result) == 1
    assert (tmp_path / "config/store_signers").read_text() == "# nobody\n"
    assert stores.take(KEY, tmp_path / "taken") is None
    (tmp_path / "config/store_signers").unlink()
    assert stores.take(KEY, tmp_path / "taken") is None
    assert stores.take("cd" * 32, tmp_path / "taken") is None
    assert capfd.readouterr().err.count("no signer is allowed") == 1, "reported once, not for each result"


def test_a_store_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, result: dict[str, Path]
) -> None:
    (tmp_path / "store").write_text("a file")
    use(monkeypatch, tmp_path, signer, f'url = "file://{tmp_path}/store"\npush = true')
    with pytest.raises(StoreError, match="cannot write"):
        stores.give(KEY, "musl:build", result)
