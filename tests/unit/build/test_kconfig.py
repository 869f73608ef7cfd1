# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration fragments."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.build import kconfig
from nabla.core.errors import ConfigError
from nabla.core.paths import KERNEL_CONFIG


def fragment(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_survivors(tmp_path: Path) -> None:
    options = fragment(tmp_path, "a.config", '# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=n\n')
    result = fragment(tmp_path, ".config", 'CONFIG_A=y\nCONFIG_C="x y"\nCONFIG_E=m\n')
    kconfig.check([options], result)


@pytest.mark.parametrize(
    ("line", "got", "message"),
    [
        ("CONFIG_A=y", "# CONFIG_A is not set", r"CONFIG_A did not survive: .*a\.config:1 wants y, the kernel has n"),
        ("CONFIG_A=y", "", r"wants y, the kernel has n"),
        ("CONFIG_A=y", "CONFIG_A=m", r"wants y, the kernel has m"),
        ("# CONFIG_A is not set", "CONFIG_A=y", r"wants n, the kernel has y"),
        ('CONFIG_A="x"', 'CONFIG_A="z"', 'wants "x", the kernel has "z"'),
    ],
)
def test_lost_option(tmp_path: Path, line: str, got: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        kconfig.check([fragment(tmp_path, "a.config", line)], fragment(tmp_path, ".config", got))
    assert "a.config:1: CONFIG_A wanted" in caught.value.hint


def test_option_in_two_fragments(tmp_path: Path) -> None:
    one = fragment(tmp_path, "a.config", "CONFIG_A=y\n")
    two = fragment(tmp_path, "b.config", "\nCONFIG_A=y\n")
    with pytest.raises(ConfigError, match=r"b\.config:2: CONFIG_A is set in .*a\.config:1 already"):
        kconfig.merged([one, two])


def test_line_that_is_no_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.config:2: neither"):
        kconfig.parse(fragment(tmp_path, "a.config", "CONFIG_A=y\nA=y\n"))


def test_committed_fragments_are_well_formed() -> None:
    folder = KERNEL_CONFIG
    assert kconfig.merged(sorted(folder.glob("*.config")))
