# SPDX-License-Identifier: Apache-2.0
"""A package does not depend on its source's archive, and the kernel contains no file that Debian removes."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
import time
from collections.abc import Iterator

import pytest

from nabla.build.kernel import SOURCES
from nabla.core.paths import KERNEL
from nabla.sources.store import Store
from tests.conftest import Checkout
from tests.unit import server as http

from .sample_packages import CACHE, checkout, compiled, prepared, sums

__all__ = ["checkout", "prepared"]

RECIPE = """\
name = "other"
version = "1"
license = "Apache-2.0"
summary = "Comes in two archives"

[[source]]
name = "other"
{origins}
[package]
build = "$CC $CFLAGS main.c -o other"
package = "install -D other $DESTDIR/usr/bin/other; install -D -m 644 -t $DESTDIR/usr/share/other data new"
"""
ORIGIN = """
[[source.origin]]
type = "url"
url = ["{url}"]
sha256 = "{sha256}"
size = {size}
"""
FILES = {"main.c": b"int main(void) { return __FILE__[0] == 0; }\n", "data": bytes(range(256)) * 64}
FILES["new"] = str(time.time_ns()).encode()  # so that no earlier run has left a result for this tree

# debian/copyright of linux 6.1.176-1.
EXCLUDED = (
    "Documentation/netlabel/draft-ietf-cipso-ipsecurity-01.txt",
    "arch/powerpc/platforms/8xx/micropatch.c",
    "drivers/media/usb/dvb-usb/af9005-script.h",
    "drivers/media/i2c/vs6624.c",
    "drivers/net/appletalk/cops",
    "drivers/video/fbdev/nvidia",
    "drivers/video/fbdev/riva",
)


def archive(top: str, mtime: int) -> bytes:
    """Return a tar of the files, below a folder of that name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.uid = len(data), mtime, mtime % 1000
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.running() as running:
        yield running


def test_same_package_out_of_another_archive(checkout: Checkout, server: http.Server) -> None:
    """An archive with different times, owners, compression and folder name; each archive is the only origin."""
    packed = {
        "/other-1.tar": archive("other-1", 1),
        "/other_1.orig.tar.xz": lzma.compress(archive("debian", 10**9 + 7)),
    }
    pins = {path: hashlib.sha256(data).hexdigest() for path, data in packed.items()}
    origins = "".join(
        ORIGIN.format(url=server.url + path, sha256=pins[path], size=len(data)) for path, data in packed.items()
    )
    checkout.write("recipes/other/recipe.toml", RECIPE.format(origins=origins))
    digests = []
    try:
        for path, data in packed.items():
            server.files = {path: data}
            for pin in pins.values():
                Store(CACHE).path(pin).unlink(missing_ok=True)
            checkout.doit("packages:other")
            assert Store(CACHE).path(pins[path]).exists()
            assert compiled(checkout, "other")
            digests.append(sums(checkout)["other-1-r0.apk"])
    finally:
        for pin in pins.values():
            Store(CACHE).path(pin).unlink(missing_ok=True)
    assert digests[0] == digests[1]


def test_what_debian_leaves_out_of_linux_is_not_in_the_kernel() -> None:
    """Neither compiled nor read by a compiled file: upstream's archive, which contains them, gives the same kernel."""
    paths = SOURCES.read_text(encoding="utf-8").splitlines()
    assert sum(path.endswith(".c") for path in paths) > 500 and "include/linux/sched.h" in paths
    assert not [path for path in paths if path.startswith(EXCLUDED)]
    config = (KERNEL / "config").read_text()
    assert not re.findall(
        r"^CONFIG_(FB_NVIDIA|FB_RIVA|COPS|VIDEO_VS6624|DVB_USB_AF9005|PPC_8xx)=", config, re.MULTILINE
    )
