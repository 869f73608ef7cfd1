# SPDX-License-Identifier: Apache-2.0
"""Each host program is in the release, its bills of materials, its report, and the checks of programs."""

from __future__ import annotations

from nabla.core import artifacts
from nabla.core.paths import BIN, VMLINUX
from nabla.images import program_check
from nabla.release import contents
from nabla.report import inputs
from nabla.sbom import collect, documents
from verify.release import consistency, layout

_PATHS = [path for artifact in artifacts.ARTIFACTS.values() for path in artifact.paths]
HOST_PROGRAMS = {path for path in _PATHS if path.parent == BIN}


def test_programs() -> None:
    """The artifacts below out/bin and the layout of a release name the same programs."""
    files = contents.files()
    assert {path.name for path in HOST_PROGRAMS} >= {"nabla", "nabla-oci", "nabla-run"}
    assert {files[name] for name in layout.PROGRAMS} == HOST_PROGRAMS | {VMLINUX}
    assert {name for name in files if name.startswith("bin/")} == set(layout.PROGRAMS) - {layout.VMLINUX}


def test_documents() -> None:
    """Bills of materials, report and checks of programs cover every host program."""
    assert set(collect.FIXED) == set(documents.FILES)
    assert set(documents.FILES.values()) >= HOST_PROGRAMS
    assert set(program_check.COMPONENTS) >= HOST_PROGRAMS
    reported = {"bin/nabla-run", *inputs.FURTHER}
    assert set(layout.PROGRAMS) - {layout.VMLINUX} <= reported
    assert {f"pkg:generic/{path.name}@" for path in HOST_PROGRAMS} <= set(consistency._OWN)
