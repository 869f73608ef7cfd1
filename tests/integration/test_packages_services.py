# SPDX-License-Identifier: Apache-2.0
"""nginx and redis as packaged, as services of the released image: started by its init, reached from the host through
published ports, with logs, stopped in order at power-off."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nabla.core.paths import MUSL
from nabla.packages import builder
from nabla.packages.catalog import read_build_record

from .conftest import image_of
from .networked import free_port, ordinary_installation, page, run_words, until

# By default both listen only on the guest's loopback.
PREPARE = """
printf 'bind *\\nprotected-mode no\\n' >/etc/redis.d/published.conf
head -c 1048576 /dev/urandom >/var/lib/nginx/html/big
sha256sum </var/lib/nginx/html/big
"""
LOGS = """
grep -c '"GET /big HTTP/1.1" 200 1048576' /var/log/nginx/access.log
grep -c 'Ready to accept connections' /var/log/redis/redis.log
tail -n 1 /var/log/redis/redis.log
ls /run/nginx.pid 2>/dev/null
dmesg | grep -c 'recovery complete'
"""


@contextmanager
def machine_of_a_user() -> Iterator[list[str]]:
    """The command line of an ordinary user's VM; its last word is a private image."""
    with ordinary_installation("alpine") as installation, tempfile.TemporaryDirectory(prefix="nabla-") as name:
        folder, image = Path(name), Path(name) / "image"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image_of("alpine"), image], check=True)
        folder.chmod(0o755)
        image.chmod(0o666)
        launcher = [*installation.prefix, str(installation.launcher), "--kernel", str(installation.kernel)]
        yield [*launcher, "--memory", "256M", str(image)]


def host_tool(name: str, *arguments: str) -> str:
    """Run a program of nabla's redis on the host, with nabla's libc as loader and the libraries of nabla's packages."""
    folders = [MUSL / "lib"]
    for record in map(read_build_record, ("openssl", "redis")):
        for part in record.parts:
            files = builder.files_path(record.key, part.name)
            folders.append(files / "usr" / "lib")
            if (files / "usr" / "bin" / name).exists():
                program = files / "usr" / "bin" / name
    loader = MUSL / "lib" / "ld-musl-x86_64.so.1"
    words = [str(loader), "--library-path", ":".join(map(str, folders)), str(program), *arguments]
    return run_words(words, timeout=120).stdout


def test_nginx_and_redis() -> None:
    web, data = free_port(), free_port()
    with machine_of_a_user() as words:
        *start, image = words
        prepared = run_words([*words, "--", "/bin/sh", "-c", PREPARE])
        assert prepared.returncode == 0, prepared.stderr
        wanted = prepared.stdout.split()[0]
        options = ["--publish", f"{web}:80", "--publish", f"{data}:6379", "--service", "nginx", "--service", "redis"]
        with subprocess.Popen([*start, *options, image], stdin=subprocess.DEVNULL, cwd="/") as machine:
            try:
                assert until(lambda: page(web), "a page")
                with ThreadPoolExecutor(4) as pool:
                    got = list(pool.map(lambda _: page(web, "/big"), range(8)))
                assert {hashlib.sha256(each or b"").hexdigest() for each in got} == {wanted}
                until(lambda: host_tool("redis-cli", "-p", str(data), "ping") == "PONG\n" or None, "PONG")
                rates = host_tool(
                    "redis-benchmark", "-p", str(data), "-q", "-n", "20000", "-c", "20", "-t", "set,get,lpush"
                )
                rates_of = dict(re.findall(r"(SET|GET|LPUSH): ([0-9.]+) requests per second", rates))
                assert rates_of.keys() == {"SET", "GET", "LPUSH"}, rates
                assert all(float(rate) > 0 for rate in rates_of.values())
                assert host_tool("redis-cli", "-p", str(data), "llen", "mylist") == "20000\n"
            finally:
                machine.send_signal(signal.SIGTERM)
                status = machine.wait(timeout=30)
        assert status == 128 + signal.SIGTERM
        served, ready, last, *rest = run_words([*words, "--", "/bin/sh", "-c", LOGS]).stdout.splitlines()
    assert (served, ready) == ("8", "1")
    assert last.endswith("Redis is now ready to exit, bye bye...")
    # No PID file remains, and the file system was synced.
    assert rest == ["0"]
