# SPDX-License-Identifier: Apache-2.0
"""Bills of materials of a small invented inventory: their contents, validation, and reproducibility."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packageurl import PackageURL

from nabla.core.errors import ImageError
from nabla.core.paths import PATCHES, ROOT
from nabla.packages import apkdb
from nabla.sbom import collect, cyclonedx, inventory, spdx
from nabla.sbom.inventory import (
    Component,
    ComponentFile,
    Inventory,
    Patch,
    SbomError,
    Source,
    SourceFile,
    make_inventory,
)
from nabla.sources import recipe

PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: Somebody <somebody@example.org>
Date: Mon, 1 Jun 2026 00:00:00 +0000
Subject: [PATCH 3/7] Fix what a long subject
 describes in two lines

Why.

{trailer}
---
diff --git a/file b/file
--- a/file
+++ b/file
@@ -1 +1 @@
-CVE: CVE-1999-0001
+CVE: CVE-1999-0002
"""


def small(version: str = "1.0") -> Inventory:
    """Return an inventory with one of each."""
    source = Source(
        "source:thing/thing",
        "thing",
        "2.0",
        "MIT",
        (
            SourceFile("thing-2.0.tar.gz", "a" * 64, ("https://example.org/thing-2.0.tar.gz",), None),
            SourceFile("thing_2.0.orig.tar.gz", "b" * 64, (), "pkg:deb/debian/thing@2.0-1?arch=source"),
        ),
    )
    patch = Patch("patches/thing/0001-fix.patch", "Fix", "c" * 64, "d" * 40, ("CVE-2024-12345",), False)
    main = Component(
        "pkg:apk/nabla/thing@2.0-r0?arch=x86_64",
        "package",
        "thing",
        "2.0-r0",
        "MIT OR Apache-2.0",
        summary="a thing",
        homepage="https://example.org/",
        purl="pkg:apk/nabla/thing@2.0-r0?arch=x86_64",
        origin="thing",
        file=ComponentFile("thing-2.0-r0.apk", "e" * 64, "f" * 128),
        sources=(source.ref,),
        patches=(patch,),
    )
    part = replace(main, ref=main.ref.replace("thing@", "thing-dev@"), name="thing-dev", depends=(main.ref,))
    part = replace(part, purl=part.ref)
    alien = Component("pkg:apk/alpine/sudo@1", "base", "sudo", "1", "custom ISC", purl="pkg:apk/alpine/sudo@1")
    image = Component("image", "image", "small", version, "NOASSERTION", contains=(main.ref, alien.ref))
    return make_inventory(version, 1780272000, [image, alien, part, main], [source])


def test_purls() -> None:
    url = PackageURL.from_string(inventory.apk_purl("nabla", "libstdc++", "12.2.0-r0", arch="x86_64"))
    assert (url.type, url.namespace, url.name, url.version) == ("apk", "nabla", "libstdc++", "12.2.0-r0")
    assert url.qualifiers == {"arch": "x86_64"}
    text = inventory.purl("deb", "musl", "1.2.5-3.1", namespace="debian", distro="trixie", arch="source")
    assert text == "pkg:deb/debian/musl@1.2.5-3.1?arch=source&distro=trixie"


def test_expressions() -> None:
    assert (
        inventory.spdx_expression("GPL-3.0-or-later WITH GCC-exception-3.1")
        == "GPL-3.0-or-later WITH GCC-exception-3.1"
    )
    for text in ("custom ISC", "GPL-2.0-only AND", "Nonsense-1.0", "MIT WITH MIT"):
        assert inventory.spdx_expression(text) is None
    assert inventory.license_names("custom ISC AND (MIT OR ISC)") == ["custom", "ISC", "MIT"]


def test_inventory_refuses_what_does_not_fit() -> None:
    whole = small()
    with pytest.raises(SbomError, match="two components have the reference image"):
        make_inventory("1", 0, [*whole.components, whole.components[0]], whole.sources)
    with pytest.raises(SbomError, match="refers to source:thing/thing"):
        make_inventory("1", 0, whole.components, [])


def test_cyclonedx() -> None:
    document = json.loads(cyclonedx.write(small()))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {entry["name"]: entry for entry in document["components"]}
    assert set(components) == {"thing", "thing-dev", "sudo", "small"}
    (patch,) = components["thing"]["pedigree"]["patches"]
    assert patch["diff"]["url"] == f"patches/thing/0001-fix.patch#sha256={'c' * 64}"
    assert [issue["id"] for issue in patch["resolves"]] == ["CVE-2024-12345"]
    assert components["thing"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert components["sudo"]["licenses"] == [{"license": {"name": "custom ISC"}}]
    references = components["thing"]["externalReferences"]
    assert {(r["url"], r["hashes"][0]["content"]) for r in references if "hashes" in r} == {
        ("https://example.org/thing-2.0.tar.gz", "a" * 64),
        ("pkg:deb/debian/thing@2.0-1?arch=source", "b" * 64),
    }
    assert "pedigree" not in components["thing-dev"]
    properties = {each["name"]: each["value"] for each in components["thing-dev"]["properties"]}
    assert properties["nabla:built-with"] == components["thing"]["bom-ref"]
    assert properties["bsi:component:filename"] == "thing-2.0-r0.apk"
    kinds = [properties[f"bsi:component:{each}"] for each in ("executable", "archive", "structured")]
    assert kinds == ["non-executable", "archive", "structured"]
    digests = {each["alg"]: each["content"] for each in components["thing-dev"]["hashes"]}
    assert digests == {"SHA-256": "e" * 64, "SHA-512": "f" * 128}
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert needs["image"] == ["pkg:apk/alpine/sudo@1", components["thing"]["bom-ref"]]
    assert needs["nabla-linux"] == ["image", components["thing-dev"]["bom-ref"]]


def test_spdx() -> None:
    document = json.loads(spdx.write(small()))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["creationInfo"]["created"] == "2026-06-01T00:00:00Z"
    packages = {(entry["name"], entry.get("primaryPackagePurpose")): entry for entry in document["packages"]}
    assert len(packages) == 6  # four components, one source, the whole
    source = packages["thing", "SOURCE"]
    assert source["checksums"] == [{"algorithm": "SHA256", "checksumValue": "a" * 64}]
    assert packages["thing", "INSTALL"]["packageFileName"] == "thing-2.0-r0.apk"
    assert packages["thing", "INSTALL"]["checksums"][1] == {"algorithm": "SHA512", "checksumValue": "f" * 128}
    assert source["downloadLocation"] == "https://example.org/thing-2.0.tar.gz"
    assert f"sha256 {'b' * 64}" in source["comment"]
    assert packages["sudo", "INSTALL"]["licenseDeclared"] == "NOASSERTION"
    assert packages["sudo", "INSTALL"]["licenseComments"] == "its author writes: custom ISC"
    (file,) = document["files"]
    assert file["fileName"] == "./patches/thing/0001-fix.patch"
    assert file["comment"] == "Fix\nfixes CVE-2024-12345"
    ids = {entry["SPDXID"]: entry["name"] for entry in [*document["packages"]]} | {file["SPDXID"]: "patch"}
    licenses_of = {
        (ids.get(r["spdxElementId"], "document"), r["relationshipType"], ids[r["relatedSpdxElement"]])
        for r in document["relationships"]
    }
    assert licenses_of == {
        ("document", "DESCRIBES", "nabla-linux"),
        ("nabla-linux", "CONTAINS", "small"),
        ("nabla-linux", "CONTAINS", "thing-dev"),
        ("small", "CONTAINS", "thing"),
        ("small", "CONTAINS", "sudo"),
        ("thing-dev", "DEPENDS_ON", "thing"),
        ("thing", "GENERATED_FROM", "thing"),
        ("thing-dev", "GENERATED_FROM", "thing"),
        ("patch", "PATCH_FOR", "thing"),
        ("patch", "PATCH_APPLIED", "thing"),
        ("patch", "PATCH_APPLIED", "thing-dev"),
    }


def test_validators_are_asked() -> None:
    whole = small()
    first = replace(whole.components[0], file=ComponentFile("thing.apk", "no digest", "f" * 128))
    broken = replace(whole, components=(first, *whole.components[1:]))
    with pytest.raises(SbomError, match="SPDX document is not valid"):
        spdx.write(broken)
    with pytest.raises(SbomError, match="CycloneDX document is not valid"):
        cyclonedx.write(broken)


def test_nothing_varies() -> None:
    program = """
import sys
from tests.unit.sbom.test_sbom import small
from nabla.sbom import cyclonedx, spdx
sys.stdout.write(spdx.write(small()) + cyclonedx.write(small()))
"""
    env = {**os.environ, "TZ": "America/Anchorage", "LC_ALL": "tr_TR.UTF-8", "PYTHONIOENCODING": "utf-8"}
    for name in ("PYTHONHASHSEED", "PYTHONPATH"):
        env.pop(name, None)
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, check=True, stdout=-1).stdout
    # Each process has its own random seed for hashes.
    assert other.decode() == spdx.write(small()) + cyclonedx.write(small())
    assert small("1.0") == small("1.0")
    assert spdx.write(small("1.1")).count("1.1") > 1


def test_serial_numbers_follow_the_content() -> None:
    whole = small()
    other = replace(whole, components=(replace(whole.components[0], summary="another"), *whole.components[1:]))
    for write, key in ((spdx.write, "documentNamespace"), (cyclonedx.write, "serialNumber")):
        assert json.loads(write(whole))[key] != json.loads(write(other))[key]


@pytest.mark.parametrize(
    ("trailer", "expected"),
    [
        ("CVE: CVE-2024-12345", ("CVE-2024-12345",)),
        ("CVE: CVE-2024-12345, CVE-2023-1234", ("CVE-2023-1234", "CVE-2024-12345")),
        ("CVE: CVE-2024-12345\nCVE: CVE-2023-1234567", ("CVE-2023-1234567", "CVE-2024-12345")),
        ("It looks like CVE-2024-12345, says CVE: none", ()),
        ("CVE: CVE-24-1", ()),
        ("", ()),
    ],
)
def test_fixes_declared_by_patches(tmp_path: Path, trailer: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "patches" / "thing" / "0001-fix.patch"
    path.parent.mkdir(parents=True)
    path.write_text(PATCH.format(trailer=trailer))
    patch = collect.read_patch(path, {})
    assert patch.fixes == expected
    assert patch.title == "Fix what a long subject describes in two lines"
    assert not patch.backport
    table = {"CVE-2020-0001": ("0001-fix.patch", "0002-more.patch"), "CVE-2020-0002": ("0002-more.patch",)}
    assert collect.read_patch(path, table).fixes == tuple(sorted({*expected, "CVE-2020-0001"}))


def test_our_patches_claim_what_they_name() -> None:
    """Each CVE that musl's recipe assigns to a patch is in the patch's text or in docs/libc-abi.md."""
    loaded = recipe.load("musl")
    page = (ROOT / "docs" / "libc-abi.md").read_text()
    assert set(loaded.fixes) == {"CVE-2025-26519", "CVE-2026-6042", "CVE-2026-40200"}
    for number, names in loaded.fixes.items():
        texts = [(PATCHES / "musl" / name).read_text() for name in names]
        assert all(number in text or number in page for text in texts)
        assert all(collect.read_patch(PATCHES / "musl" / name, {}).backport for name in names)


INSTALLED = """\
C:Q1x
P:libthing
V:2.0-r1
L:MIT
o:thing
D:so:libc.musl-x86_64.so.1 !other musl>=1.2 /bin/sh
p:so:libthing.so.2=2.0
F:
F:usr/lib
R:libthing.so.2
a:0:0:755
Z:Q1x

C:Q1y
P:musl
V:1.2.5-r1
T:the C library
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1

"""


def test_installed_database() -> None:
    thing, musl = apkdb.parse(INSTALLED)
    assert (thing.name, thing.version, thing.origin, thing.files) == (
        "libthing",
        "2.0-r1",
        "thing",
        ("/usr/lib/libthing.so.2",),
    )
    assert (musl.origin, musl.license, musl.homepage) == ("musl", "", None)
    providers = {"musl": "M", "so:libc.musl-x86_64.so.1": "M", "other": "O"}
    assert apkdb.resolve(thing.depends, providers) == ("M",)
    with pytest.raises(ImageError, match="no 'V' in"):
        apkdb.parse("P:a\n\n")


def test_wheels_tell_what_they_brought_along(tmp_path: Path) -> None:
    import zipfile

    wheel = tmp_path / "x.whl"
    own = {"bom-ref": "own", "name": "x", "purl": "pkg:pypi/x@1"}
    inner = {"bom-ref": "in", "name": "libgcc", "version": "14-r6", "purl": "pkg:apk/alpine/libgcc@14-r6"}
    with zipfile.ZipFile(wheel, "w") as archive:
        text = json.dumps({"metadata": {"component": own}, "components": [own, inner]})
        archive.writestr("x-1.dist-info/sboms/auditwheel.cdx.json", text)
    (component,) = collect._bundled(wheel, "x.whl")
    assert (component.name, component.version, component.purl) == ("libgcc", "14-r6", "pkg:apk/alpine/libgcc@14-r6")
