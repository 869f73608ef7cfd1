# SPDX-License-Identifier: Apache-2.0
"""Texts of licenses: found in each kind of archive, by name or by a recipe's list; cached; missing ones are errors."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from nabla.sbom import licenses
from nabla.sbom.inventory import license_names, spdx_expression
from nabla.sbom.licenses import LicenseError, Row, Text
from nabla.sources import archives, recipe
from tests.unit import debs

pytestmark = pytest.mark.usefixtures("cache")

FILES = {
    "thing-1/COPYING": "the copying",
    "thing-1/LICENSE.txt": "the license",
    "thing-1/LICENSES/MIT": "mit",
    "thing-1/deps/inner/LICENCE": "of a part",
    "thing-1/tests/LICENSE": "of tests",
    "thing-1/Doc/copyright.rst": "a page",
    "thing-1/src/license.h": "code",
    "thing-1/src/licensed_to_kill.c": "code",
    "thing-1/README": "read me",
}


def tar(files: Mapping[str, str], compression: str = "gz") -> bytes:
    """Return a compressed tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


def stored(folder: Path, data: bytes) -> Path:
    """Write an archive under its digest, as the cache does."""
    path = folder / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return path


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of fetched sources are in the test's own folder."""
    monkeypatch.setattr(archives, "source_record", lambda name: tmp_path / f"{name}.json")


def places(texts: list[Text]) -> dict[str, str]:
    return {text.path: text.content for text in texts}


@pytest.mark.parametrize("compression", ["gz", "xz", "bz2"])
def test_tar(tmp_path: Path, compression: str) -> None:
    assert places(licenses.of_archive(stored(tmp_path, tar(FILES, compression)))) == {
        "COPYING": "the copying",
        "LICENSE.txt": "the license",
        "LICENSES/MIT": "mit",
        "deps/inner/LICENCE": "of a part",
    }


def test_wheel(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("thing/__init__.py", "")
        archive.writestr("thing/licenses/__init__.py", "")
        archive.writestr("thing-1.dist-info/licenses/LICENSE", "the license")
        archive.writestr("thing-1.dist-info/licenses/AUTHORS", "somebody")
    texts = places(licenses.of_archive(stored(tmp_path, stream.getvalue())))
    assert texts == {
        "thing-1.dist-info/licenses/AUTHORS": "somebody",
        "thing-1.dist-info/licenses/LICENSE": "the license",
    }


def test_debian_package_and_an_archive_inside(tmp_path: Path) -> None:
    inner = tar(FILES, "xz")
    info = tarfile.TarInfo("./usr/src/thing-1.tar.xz")
    info.size = len(inner)
    body = debs.deb([debs.member("./usr/share/doc/thing/copyright", "all of it"), (info, inner)])
    path = stored(tmp_path, body)
    assert places(licenses.of_archive(path)) == {"usr/share/doc/thing/copyright": "all of it"}
    wanted = ("usr/src/thing-1.tar.xz!COPYING", "usr/src/thing-1.tar.xz!src/license.h")
    assert places(licenses.of_archive(path, wanted)) == dict(zip(wanted, ("the copying", "code"), strict=True))


def test_what_is_wanted_takes_the_place_of_what_is_found(tmp_path: Path) -> None:
    path = stored(tmp_path, tar(FILES))
    assert places(licenses.of_archive(path, ["README"])) == {"README": "read me"}


def test_reading_ends_when_all_was_found(tmp_path: Path) -> None:
    whole = tar({**FILES, "thing-1/large": random.Random(1).randbytes(100_000).hex()}, "gz")
    path = stored(tmp_path, whole[: len(whole) // 2])  # the rest of the archive is missing
    assert places(licenses.of_archive(path, ["COPYING"])) == {"COPYING": "the copying"}
    with pytest.raises(LicenseError, match="cannot be read"):
        licenses.of_archive(path, ["README", "nowhere"])


def test_what_was_read_is_kept_and_checked(tmp_path: Path, cache: Path) -> None:
    path = stored(tmp_path, tar(FILES))
    first = licenses.of_archive(path)
    path.write_bytes(b"")
    assert licenses.of_archive(path) == first
    (entry,) = (cache / "results").rglob("texts.json")
    entry.write_text(entry.read_text().replace("the copying", "the forgery"))
    path.write_bytes(tar(FILES))
    assert licenses.of_archive(path) == first


def test_old_texts_are_read_as_latin_1(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/LICENSE", "Jürgen".encode("latin-1"))
    assert places(licenses.of_archive(stored(tmp_path, stream.getvalue()))) == {"a/LICENSE": "Jürgen"}


def thing(tmp_path: Path, data: bytes, extra: str = "") -> recipe.Recipe:
    """Return a recipe whose only source is already in the cache."""
    from nabla.sources import store

    digest = hashlib.sha256(data).hexdigest()
    partial = tmp_path / "partial"
    partial.write_bytes(data)
    store.cache().add(partial, digest)
    archive = archives.Archive(source="thing", file="a.tar.gz", sha256=digest, size=len(data))
    (tmp_path / "thing.json").write_bytes(msgspec.json.encode([archive]))
    path = tmp_path / "thing" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(
        f'name = "thing"\nversion = "1"\nlicense = "MIT"\nsummary = "a"\n{extra}\n[[source]]\nname = "thing"\n'
        f'[[source.origin]]\ntype = "url"\nurl = ["https://example.org/a.tar.gz"]\n'
        f'sha256 = "{digest}"\nsize = {len(data)}\n'
    )
    return recipe.load_file(path)


def test_recipe(tmp_path: Path) -> None:
    again = {**FILES, "thing-1/second/COPYING": "the copying"}
    texts = licenses.of_recipe(thing(tmp_path, tar(again)))
    assert [text.path for text in texts] == ["COPYING", "LICENSE.txt", "LICENSES/MIT", "deps/inner/LICENCE"]


def test_recipe_without_a_text(tmp_path: Path) -> None:
    with pytest.raises(LicenseError, match="thing: its sources contain no license text") as caught:
        licenses.of_recipe(thing(tmp_path, tar({"thing-1/README": "x"})))
    assert "license_files" in caught.value.hint


def test_recipe_that_names_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LicenseError, match="thing: no source contains HERE, which `license_files` lists"):
        licenses.of_recipe(thing(tmp_path, tar(FILES), 'license_files = ["COPYING", "HERE"]'))


def test_report_and_files(tmp_path: Path) -> None:
    texts = [Text("a/LICENSE", "1"), Text("a_LICENSE", "2")]
    paths = licenses._write(texts, tmp_path / "licenses", "thing")
    assert paths == ("thing/a_LICENSE", "thing/a_LICENSE.2")
    assert [(tmp_path / "licenses" / path).read_text() for path in paths] == ["1", "2"]
    page = licenses.report([Row("thing", "1", "MIT", paths, "a|b")])
    assert "| thing | 1 | MIT | [a_LICENSE](licenses/thing/a_LICENSE), " in page
    assert page.rstrip().endswith("a\\|b |")


def test_expressions_of_all_recipes_are_spdx() -> None:
    for name in recipe.names():
        licenses.check_expression(name, recipe.load(name).license)
    with pytest.raises(LicenseError, match="thing: 'GPLv2' is not an SPDX license expression"):
        licenses.check_expression("thing", "GPLv2")


def test_standard_texts_have_names_of_spdx(tmp_path: Path) -> None:
    for name in licenses.STANDARD:
        assert spdx_expression(name) is not None and license_names(name) == [name]
    with pytest.raises(LicenseError, match="sudo: there is no text of the license 'Unheard-Of'"):
        licenses._Standard(tmp_path).row("sudo", "1", "Unheard-Of AND MIT")
    with pytest.raises(LicenseError, match="there is no text of the license 'custom'"):
        licenses._Standard(tmp_path).row("sudo", "1", "custom")
