# SPDX-License-Identifier: Apache-2.0
"""Bills of materials in both usual formats, the texts of all licenses, and known vulnerabilities.

kernel, musl, busybox, launcher, init, packages, rootfs:<released image>
    -> sbom -> out/sbom/nabla.spdx.json, nabla.cdx.json, nabla.openvex.json, nabla.vex.cdx.json, licenses.md,
       licenses/<component>/…
out/sbom/nabla.cdx.json, apk:tools, databases of the user -> scan -> a table, exit status 0 or 1
                                                          -> vex -> out/vex/nabla.openvex.json, nabla.cdx.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doit.exceptions import BaseFail, TaskFailed

from nabla.core import artifacts, log
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.paths import BUSYBOX, MUSL, ROOT, relative
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.packages import catalog
from nabla.sandbox import lockfile
from nabla.sbom import collect, documents
from nabla.sbom import vex as vex_documents
from nabla.sources import recipe
from verify.release.tools import ToolError
from verify.release.vex import VexError
from verify.scan import match
from verify.scan.advisories import ScanError

_BILL = {"name": "sbom", "long": "sbom", "type": str, "default": "", "help": "a CycloneDX document of a release"}


def task_sbom() -> TaskDict:
    """Write the bills of materials."""
    packages = catalog.recipes()
    recipes = sorted({*catalog.names(), *collect.FIXED, artifacts.BASE})
    loaded = [recipe.load(name) for name in recipes]
    return task.step(
        "sbom",
        documents.write,
        doc="bills of materials (SPDX, CycloneDX), checked by their validators, and the texts of all licenses",
        inputs=[
            *(documents.FILES[name] for name in ("linux", "nabla-init", "nabla-run", "nabla", "nabla-oci")),
            *(Tree(MUSL), Tree(BUSYBOX)),
            *(artifacts.image_path(name) for name in artifacts.RELEASED_IMAGES),
            *(artifacts.package_record(each.name) for each in packages),
            *(path for each in packages for path in catalog.apks(each)),
            *(artifacts.source_record(each.name) for each in loaded if each.is_remote),
            *(each.path for each in loaded),
            *(patch for each in loaded for patch in each.patches),
            *(ROOT / "LICENSE", lockfile.LOCK),
        ],
        outputs=[
            *(artifacts.SPDX, artifacts.CYCLONEDX, artifacts.OPENVEX, artifacts.VEX_CYCLONEDX),
            *(artifacts.LICENSE_TEXTS, artifacts.LICENSE_LIST),
        ],
        # Texts of licenses come from its packages.
        after=["fetch:buildroot"],
        config=list(artifacts.RELEASED_IMAGES),
        checks=[documents.same_version],
    )


def task_digests_sbom() -> Iterator[TaskDict]:
    """Write the bills of materials of the reference form."""
    yield task.ungrouped(
        task.step(
            "digests:sbom",
            documents.write_reference,
            doc="bills of materials of a version 0, of packages without signatures",
            inputs=[artifacts.REFERENCE_REPOSITORY, artifacts.SPDX, artifacts.CYCLONEDX],
            outputs=[artifacts.REFERENCE_SBOM],
            # The validators take most of the time.
            cacheable=True,
            remote=False,
            repeated=True,
        )
    )


def task_scan() -> TaskDict:
    """Search for known vulnerabilities."""
    return task.command(
        "scan",
        scan,
        doc="search the shipped components for known vulnerabilities: doit scan [--json] [--sbom FILE] [--vex FILE] "
        "DATABASE…",
        after=["apk:tools"],
        params=[
            {"name": "json", "long": "json", "type": bool, "default": False, "help": "print JSON instead of a table"},
            _BILL,
            {"name": "vex", "long": "vex", "type": list, "default": [], "help": "statements: OpenVEX or CycloneDX"},
        ],
        words="databases",
    )


def scan(json: bool, sbom: str, vex: list[str], databases: list[str]) -> BaseFail | None:
    """Print the findings; fail (status 1) if a vulnerability is open."""
    with _reported():
        count = match.show(_bill(sbom), _paths(databases), _paths(vex), as_json=json)
    return TaskFailed(f"{count} known vulnerabilities are open") if count else None


def task_vex() -> TaskDict:
    """Write statements about vulnerabilities."""
    return task.command(
        "vex",
        write_vex,
        doc="write statements about vulnerabilities to out/vex (OpenVEX, CycloneDX): doit vex [--sbom FILE] "
        "[DATABASE…]",
        after=["apk:tools"],
        params=[_BILL],
        words="databases",
    )


def write_vex(sbom: str, databases: list[str]) -> None:
    """Write both documents and print a line for each status."""
    with _reported():
        statements = vex_documents.write(_bill(sbom), _paths(databases))
    counts = Counter(statement.status for statement in statements)
    log.info(f"{relative(artifacts.VEX)}: " + (", ".join(f"{n} {s}" for s, n in sorted(counts.items())) or "nothing"))


def _bill(sbom: str) -> Path:
    return Path(sbom) if sbom else artifacts.CYCLONEDX


def _paths(names: list[str]) -> list[Path]:
    return [Path(name) for name in names]


@contextmanager
def _reported() -> Iterator[None]:
    """Turn the checkers' errors into the build's."""
    try:
        yield
    except (ScanError, VexError, ToolError) as error:
        raise NablaError(str(error), error.hint) from error
