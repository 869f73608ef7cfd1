# SPDX-License-Identifier: Apache-2.0
"""The settings of config.json in the VM's command: process, mounts, kernel parameters, hooks, cgroups."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .bundles import Bundle
from .test_oci_runtime import bundle, tree

__all__ = ["bundle", "tree"]


def test_arguments_and_environment(bundle: Bundle) -> None:
    words = ["sh", "-c", 'printf "%s|" "$@"; env | sort | grep -v ^_; pwd', "sh", "", "a b", "$x", "ä\n"]
    bundle.process["args"] = words
    bundle.process["env"] = ["PATH=/bin:/usr/bin", "A=b=c", "EMPTY=", "HOME=/tmp"]
    bundle.process["cwd"] = "/usr/lib"
    status, output = bundle.run()
    assert status == 0, output
    assert output.startswith("|a b|$x|ä\n|")
    shown = output.split("|")[-1].splitlines()
    assert {"A=b=c", "EMPTY=", "HOME=/tmp", "PATH=/bin:/usr/bin"} <= set(shown)
    assert shown[-1] == "/usr/lib"
    assert not [line for line in shown if line.startswith(("TERM=", "USER=", "LOGNAME="))]


def test_long_arguments(bundle: Bundle) -> None:
    """They are not part of the kernel's command line."""
    bundle.process["args"] = ["sh", "-c", "echo ${#1} $#", "sh", "x" * 60_000, *["y"] * 500]
    assert bundle.run() == (0, "60000 501\n")


def test_a_program_by_path(bundle: Bundle) -> None:
    """With a slash, PATH is not searched; without PATH, nothing is found."""
    bundle.process["env"] = []
    bundle.process["args"] = ["/bin/echo", "x"]
    assert bundle.run() == (0, "x\n")
    bundle.process["args"] = ["echo", "x"]
    assert bundle.run()[0] == 127
    bundle.process["cwd"] = "/bin"
    bundle.process["args"] = ["./echo", "x"]
    assert bundle.run() == (0, "x\n")


def test_a_working_directory_that_is_missing(bundle: Bundle) -> None:
    bundle.process["cwd"] = "/new"
    assert bundle.says("pwd") == "/new\n"


def test_user_and_groups(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000], "umask": 0o27}
    assert bundle.says("id; umask; grep ^Groups /proc/self/status").splitlines() == [
        "uid=1000 gid=2000 groups=3000,4000",
        "0027",
        "Groups:\t3000 4000 ",
    ]
    bundle.process["user"] = {"uid": 0, "gid": 0}
    assert bundle.says("umask; echo $HOME") == "0022\n/root\n"


def test_limits(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 18446744073709551615},
        {"type": "RLIMIT_NPROC", "soft": 50, "hard": 50},
    ]
    limits = bundle.says("cat /proc/self/limits")
    assert re.search(r"^Max open files +100 +200 ", limits, re.MULTILINE)
    assert re.search(r"^Max core file size +0 +unlimited ", limits, re.MULTILINE)
    assert re.search(r"^Max processes +50 +50 ", limits, re.MULTILINE)


CAPABILITIES = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"


def capabilities(bundle: Bundle) -> dict[str, int]:
    """Return the capabilities of the command, and whether it can gain privileges."""
    lines = bundle.says(CAPABILITIES).splitlines()
    return {name: int(value, 16) for name, value in (line.split(":\t") for line in lines)}


@pytest.mark.parametrize("uid", [0, 1000])
def test_capabilities(bundle: Bundle, uid: int) -> None:
    bundle.process["user"]["uid"] = uid
    bundle.process["noNewPrivileges"] = True
    kill, chown = 1 << 5, 1
    both = ["CAP_KILL", "CAP_CHOWN"]
    bundle.process["capabilities"] = {
        **dict.fromkeys(("bounding", "permitted", "inheritable"), both),
        "effective": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    shown = capabilities(bundle)
    assert shown["CapBnd"] == kill | chown
    assert shown["NoNewPrivs"] == 1
    assert shown["CapEff"] == (kill | chown if uid == 0 else kill)  # an execve grants root everything that it may have
    assert shown["CapAmb"] == kill


def test_without_capabilities(bundle: Bundle) -> None:
    bundle.process["capabilities"] = {}
    assert {name: value for name, value in capabilities(bundle).items() if value} == {}


def test_an_unknown_capability(bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["capabilities"] = {"bounding": ["CAP_KILL", "CAP_FLY"]}
    bundle.options = ("--log", str(tmp_path / "log"), "--log-format", "json")
    assert capabilities(bundle)["CapBnd"] == 1 << 5
    (entry,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert entry["level"] == "warning" and "CAP_FLY" in entry["msg"]


def test_names(bundle: Bundle) -> None:
    bundle.config |= {"hostname": "some-host", "domainname": "some.domain"}
    assert bundle.says("hostname; cat /proc/sys/kernel/domainname") == "some-host\nsome.domain\n"


def test_kernel_parameters(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"kernel.shmmni": "77", "net.ipv4.ip_forward": "1"}
    assert bundle.says("cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward") == "77\n1\n"
    bundle.linux["sysctl"] = {"kernel.nothing": "1"}
    status, output = bundle.run("echo ran")
    assert (status, output) == (125, "nabla-init: /proc/sys/kernel/nothing: No such file or directory\n")


def test_badness_for_the_out_of_memory_killer(bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 300
    assert bundle.says("cat /proc/self/oom_score_adj") == "300\n"


def test_the_guests_own_file_systems(bundle: Bundle) -> None:
    bundle.mount("/proc", "proc", "proc", "nosuid")
    bundle.mount("/dev", "tmpfs", "tmpfs", "mode=755", "size=65536k")
    bundle.mount("/dev/pts", "devpts", "devpts", "newinstance", "gid=5")
    bundle.mount("/dev/shm", "shm", "tmpfs", "mode=1777")
    bundle.mount("/dev/mqueue", "mqueue", "mqueue")
    bundle.mount("/sys", "sysfs", "sysfs", "ro")
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    mounts = bundle.says("cat /proc/mounts; ls /dev/fd/ /dev/null /dev/zero /dev/random /dev/tty /dev/ptmx; uname -s")
    types = {line.split()[1]: line.split()[2] for line in mounts.splitlines() if " / " not in line and " 0 0" in line}
    assert types["/proc"] == "proc" and types["/sys"] == "sysfs" and types["/dev"] == "devtmpfs"
    assert types["/dev/pts"] == "devpts" and types["/dev/shm"] == "tmpfs"
    assert mounts.endswith("Linux\n")


def test_binds(bundle: Bundle, tmp_path: Path) -> None:
    """Directories and files, read-only and not; missing mount points are made; a later mount covers an earlier one."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("data\n")
    (tmp_path / "hosts").write_text("hosts\n")
    (tmp_path / "other").mkdir()
    bundle.mount("/etc/hosts", tmp_path / "hosts", "bind", "bind", "ro")
    bundle.mount("/new/data", "data", "", "rbind")  # relative to the bundle, a bind by its options
    bundle.mount("/new/ro", tmp_path / "data", "bind", "rbind", "ro", "rprivate")
    bundle.mount("/new/data/sub", tmp_path / "other", "bind", "bind")
    output = bundle.says(
        "cat /etc/hosts /new/data/file; echo x >/new/data/made; echo y >/new/data/sub/below; cat /new/ro/made;"
        " ! echo x >/new/ro/z; ! echo x >/etc/hosts; ls /new/ro/sub"
    )
    assert output.startswith("hosts\ndata\nx\n") and output.count("Read-only file system") == 2
    assert (tmp_path / "data" / "made").read_text() == "x\n"
    assert (tmp_path / "other" / "below").read_text() == "y\n"
    assert (bundle.folder / "rootfs" / "new" / "data").is_dir()


def test_an_image_whose_links_lead_out(bundle: Bundle, tmp_path: Path) -> None:
    """Mount points are resolved inside the root directory, whatever the image contains."""
    root = bundle.folder / "rootfs"
    (tmp_path / "outside").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("data\n")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("../../../../../../.." + str(tmp_path / "outside"))
    (root / tmp_path.relative_to("/") / "outside").mkdir(parents=True)
    bundle.mount("/link/a", tmp_path / "data", "bind", "bind")
    bundle.mount("/up/b", tmp_path / "data", "bind", "bind")
    assert bundle.says(f"cat {tmp_path}/outside/a/file {tmp_path}/outside/b/file") == "data\ndata\n"
    assert list((tmp_path / "outside").iterdir()) == []
    (root / "dangling").symlink_to("/nowhere")
    bundle.mount("/dangling/c", tmp_path / "data", "bind", "bind")
    bundle.create_refused("cannot create /dangling/c in the root directory")


def test_proc_of_an_image_is_a_link(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (bundle.folder / "rootfs" / "proc").rmdir()
    (bundle.folder / "rootfs" / "proc").symlink_to(tmp_path / "outside")
    bundle.create_refused("cannot create directory /proc in the root directory")
    assert list((tmp_path / "outside").iterdir()) == []


def test_memory_file_systems(bundle: Bundle, tmp_path: Path) -> None:
    """The guest mounts a tmpfs; the host does if other mounts are below it, or with `tmpcopyup`."""
    root = bundle.folder / "rootfs"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("data\n")
    (root / "filled" / "sub").mkdir(parents=True)
    (root / "filled" / "sub" / "file").write_text("filled\n")
    (root / "filled" / "link").symlink_to("sub/file")
    (root / "filled" / "sub" / "file").chmod(0o640)
    bundle.mount("/run", "tmpfs", "tmpfs", "size=1m", "mode=700")
    bundle.mount("/run/below", tmp_path / "data", "bind", "bind")
    bundle.mount("/small", "tmpfs", "tmpfs", "size=64k", "noexec")
    bundle.mount("/filled", "tmpfs", "tmpfs", "size=1m", "tmpcopyup")
    output = bundle.says(
        "cat /run/below/file /filled/link; stat -c %a /run /filled/sub/file; echo x >/run/x; echo x >/filled/x;"
        " grep -o '/small tmpfs.*' /proc/mounts"
    )
    assert output.startswith("data\nfilled\n700\n640\n")
    assert re.search(r"^/small tmpfs .*noexec.*size=64k", output, re.MULTILINE)
    assert not (root / "run" / "x").exists() and not (root / "filled" / "x").exists()


def test_no_execution(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "script").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "data" / "script").chmod(0o755)
    bundle.mount("/yes", tmp_path / "data", "bind", "bind")
    bundle.mount("/no", tmp_path / "data", "bind", "bind", "noexec")
    output = bundle.says("/yes/script; ! /no/script")
    assert output.startswith("ran\n") and "Permission denied" in output


def test_a_root_that_is_read_only(bundle: Bundle, tmp_path: Path) -> None:
    bundle.config["root"]["readonly"] = True
    (tmp_path / "data").mkdir()
    bundle.mount("/data", tmp_path / "data", "bind", "bind")
    assert "Read-only file system" in bundle.says("! echo x >/x; echo x >/data/x")
    assert (tmp_path / "data" / "x").exists() and not (bundle.folder / "rootfs" / "x").exists()


def test_hidden_and_protected_paths(bundle: Bundle) -> None:
    root = bundle.folder / "rootfs"
    (root / "hidden").mkdir()
    (root / "hidden" / "file").write_text("secret")
    (root / "secret").write_text("secret")
    (root / "fixed").mkdir()
    bundle.linux["maskedPaths"] = ["/hidden", "/secret", "/nowhere", "/proc/kcore"]
    bundle.linux["readonlyPaths"] = ["/fixed", "/nowhere", "/proc/sys"]
    assert (
        bundle.says("ls /hidden; cat /secret; ! echo x >/fixed/x")
        == "sh: can't create /fixed/x: Read-only file system\n"
    )
    assert (root / "secret").read_text() == "secret" and list((root / "fixed").iterdir()) == []


def test_memory(bundle: Bundle) -> None:
    """The VM's memory: by default, by the limit, by annotation."""

    def total() -> int:
        return int(bundle.says("grep MemTotal /proc/meminfo").split()[1]) >> 10

    assert 200 < total() < 256
    bundle.linux["resources"] = {"memory": {"limit": 96 << 20}}
    assert 50 < total() < 80
    bundle.config["annotations"] = {"org.nabla-linux.memory": "40M"}
    assert total() < 40


def test_number_of_processes(bundle: Bundle) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 10}}
    script = "i=0; while [ $i -lt 30 ]; do sleep 0.3 & i=$((i+1)); done; wait"
    assert "can't fork" in bundle.run(script)[1]
    bundle.linux["resources"]["pids"]["limit"] = 40
    assert bundle.run(script) == (0, "")
