# SPDX-License-Identifier: Apache-2.0
"""Refused configurations: each is one line at create, with the property and the reason, and leaves nothing behind."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nabla.core.paths import OCI_SRC, TESTS
from tests.conftest import ROOT

from .bundles import Bundle, namespaces, properties
from .test_oci_runtime import bundle, tree

__all__ = ["bundle", "tree"]

Change = Callable[[dict[str, Any]], None]


def without(name: str) -> Change:
    """Return a function that removes a member."""
    return lambda config: config.pop(name)


def mount(*options: str, kind: str = "bind", source: str = "/tmp", destination: str = "/mnt") -> Change:
    """Return a function that adds a mount."""
    row = {"destination": destination, "type": kind, "source": source, "options": list(options)}
    return properties("mounts", [row])


def spaces(*changes: tuple[str, str | None], absent: str = "") -> Change:
    """Return a function that changes the namespaces."""
    return properties("linux.namespaces", namespaces(*changes, without=(absent,)))


CASES: list[tuple[Change, str]] = [
    # the configuration as a whole
    (without("ociVersion"), "ociVersion: is required"),
    (properties("ociVersion", 1), "ociVersion: must be of type string, and is of type int"),
    *(
        (properties("ociVersion", text), "ociVersion:")
        for text in ("", "1", "1.0", "01.0.0", "1.0.0-", "1.0.0 ", "2.0.0")
    ),
    (without("root"), "root: is required"),
    (properties("root", {}), "root.path: is required"),
    (properties("root.path", ""), "root.path: is empty"),
    (properties("root.path", "nowhere"), "root.path"),
    (properties("root.path", "config.json"), "is not a directory"),
    (properties("root.path", "/"), "the host's own root cannot be shared"),
    (properties("hostname", "a b"), "hostname: 'a b' contains characters other than"),
    (properties("hostname", "x" * 65), "hostname: has more than 64 characters"),
    (properties("annotations", {"": "x"}), "annotations: has an empty key"),
    (properties("annotations", {"a": 1}), "annotations.a: must be of type string"),
    (properties("annotations", {"org.nabla-linux.memory": "1M"}), "'1M' is not a size of memory"),
    (properties("annotations", {"org.nabla-linux.network": "x"}), "'x' is unknown"),
    (properties("vm", {"hypervisor": {"path": "/x"}}), "vm: the bundle describes another hypervisor's VM"),
    # process
    (properties("process.args", []), "process: args names no program"),
    (properties("process.args", ["a\0b"]), "process.args[0]: contains a NUL character"),
    (properties("process.args", [1]), "process.args[0]: must be of type string"),
    (properties("process.cwd", "x"), "process.cwd: 'x' is not an absolute path"),
    (properties("process.env", ["x"]), "env[0] is not a variable"),
    (properties("process.env", ["=x"]), "env[0] is not a variable"),
    (properties("process.user", {"uid": -1, "gid": 0}), "process.user.uid: -1 is not between 0 and 4294967294"),
    (properties("process.user", {"uid": 0, "gid": 1 << 32}), "process.user.gid:"),
    (properties("process.user", {"uid": 0, "gid": 0, "umask": 0o1000}), "process.user.umask:"),
    (properties("process.user", {"uid": 0, "gid": 0, "additionalGids": ["x"]}), "process.user.additionalGids[0]:"),
    (properties("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "there is no limit RLIMIT_X"),
    (
        properties("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]),
        "the soft limit is above the hard one",
    ),
    (properties("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2), "RLIMIT_CPU appears twice"),
    (properties("process.oomScoreAdj", 1001), "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    (properties("process.scheduler", {"policy": "SCHED_FIFO"}), "process.scheduler: the guest has one processor"),
    (properties("process.ioPriority", {"class": "IOPRIO_CLASS_IDLE"}), "process.ioPriority:"),
    (properties("process.execCPUAffinity", {"initial": "0"}), "process.execCPUAffinity:"),
    # mounts
    (mount(destination="mnt"), "mounts[0].destination: mnt is not an absolute path"),
    (mount(destination="/a/../b"), "mounts[0].destination: /a/../b has . or .. in it"),
    (mount(destination="/"), "mounts[0].destination: the root cannot be replaced"),
    (mount(destination="/dev/x"), "/dev/x is below /dev, which is the guest's own"),
    (mount(destination="/proc/x"), "/proc/x is below /proc, which is the guest's own"),
    (mount(kind="proc", destination="/other"), "a VM cannot mount type 'proc' at /other"),
    (mount(kind="overlay"), "a VM cannot mount type 'overlay' at /mnt"),
    (mount(source="/nowhere"), "mount at /mnt: /nowhere: No such file or directory"),
    (mount(source="/dev/null"), "/dev/null is neither a directory nor a regular file"),
    (mount(source=""), "mounts[0].source: is empty"),
    (mount(source="/etc/passwd", destination="/etc"), "one of it and /etc/passwd is a directory"),
    (mount("size=1"), "unknown option of a bind: size=1"),
    (mount("huge=always", kind="tmpfs"), "unknown option of a tmpfs: huge=always"),
    *(
        (mount(option), f"options[0]: a VM's mounts cannot have the option {option}")
        for option in ("rshared", "idmap", "sync")
    ),
    # linux
    (without("linux"), "without a namespace pid"),
    (spaces(("nothing", None)), "there is no namespace 'nothing'"),
    (properties("linux.namespaces", [*namespaces(), {"type": "pid"}]), "a second namespace 'pid'"),
    (spaces(("network", "relative")), "'relative' is not an absolute path"),
    (spaces(("network", "/nowhere")), "cannot join the network namespace /nowhere: No such file or directory"),
    (spaces(("network", "/etc/passwd")), "cannot join the network namespace /etc/passwd: Invalid argument"),
    *(
        (spaces((kind, "/proc/1/ns/x")), f"namespace {kind}: ")
        for kind in ("pid", "ipc", "uts", "mount", "user", "time", "cgroup")
    ),
    *((spaces((kind, None)), f"namespace {kind}: ") for kind in ("user", "time")),
    *((spaces(absent=kind), f"without a namespace {kind}: ") for kind in ("pid", "ipc", "uts", "mount")),
    (spaces(absent="network"), "a VM cannot use the host's network"),
    (properties("linux.uidMappings", [{"containerID": 0, "hostID": 1, "size": 1}]), "linux.uidMappings: files of a VM"),
    (properties("linux.gidMappings", [{"containerID": 0, "hostID": 1, "size": 1}]), "linux.gidMappings: files of a VM"),
    (
        properties("linux.devices", [{"path": "/dev/fuse", "type": "c"}]),
        "the VM cannot have the host's device /dev/fuse",
    ),
    (properties("linux.sysctl", {"a/b": "1"}), "linux.sysctl.a/b: is not the name of a kernel parameter"),
    (properties("linux.sysctl", {"a": 1}), "linux.sysctl.a: must be of type string"),
    (properties("linux.intelRdt", {"closID": "x"}), "linux.intelRdt: cache allocation is not supported"),
    (properties("linux.personality", {"domain": "LINUX32"}), "the guest's kernel has no personality LINUX32"),
    (properties("linux.rootfsPropagation", "shared"), "linux.rootfsPropagation: mounts of a VM reach nobody else"),
    (properties("linux.timeOffsets", {"boottime": {"secs": 1}}), "linux.timeOffsets: the guest has the host's clocks"),
    (properties("linux.netDevices", {"eth0": {}}), "linux.netDevices: interfaces of the host"),
    (properties("linux.memoryPolicy", {"mode": "MPOL_BIND"}), "linux.memoryPolicy: the guest has one memory node"),
    (
        properties("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}),
        "linux.seccomp.listenerPath:",
    ),
    (properties("linux.maskedPaths", ["x"]), "linux.maskedPaths[0]: x is not an absolute path"),
    (properties("linux.cgroupsPath", "/../x"), "linux.cgroupsPath: '/../x' has .. in it"),
    (properties("linux.resources", {"memory": {"limit": 1000}}), "1000 bytes are too little for a VM"),
    (properties("linux.resources", {"memory": {"limit": 1 << 30, "swap": 1}}), "is the sum of memory and swap"),
    (properties("linux.resources", {"memory": {"swappiness": 60}}), "linux.resources.memory.swappiness:"),
    (properties("linux.resources", {"memory": {"kernel": 1}}), "linux.resources.memory.kernel:"),
    (properties("linux.resources", {"cpu": {"realtimeRuntime": 1}}), "linux.resources.cpu.realtimeRuntime:"),
    (properties("linux.resources", {"cpu": {"quota": 1000}}), "linux.resources: cpu.max cannot be set"),
    (properties("linux.resources", {"blockIO": {"weight": 10}}), "linux.resources.blockIO:"),
    (
        properties("linux.resources", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
        "linux.resources.hugepageLimits:",
    ),
    (properties("linux.resources", {"network": {"classID": 1}}), "linux.resources.network:"),
    (properties("linux.resources", {"rdma": {"mlx": {"hcaHandles": 1}}}), "linux.resources.rdma:"),
    (properties("linux.resources", {"unified": {"cgroup.procs": "1"}}), "is not a limit of a cgroup"),
    # hooks
    (properties("hooks", {"prestart": [{"path": "x"}]}), "hooks.prestart[0].path: 'x' is not an absolute path"),
    (properties("hooks", {"poststop": [{"path": "/x", "timeout": 0}]}), "hooks.poststop[0].timeout: 0 is not between"),
    (
        properties("hooks", {"startContainer": [{"path": "/x"}]}),
        "hooks.startContainer: hooks cannot run inside a VM",
    ),
]


@pytest.mark.parametrize(("change", "message"), CASES, ids=[message for _, message in CASES])
def test_refused(bundle: Bundle, change: Change, message: str) -> None:
    change(bundle.config)
    bundle.create_refused(message)


@pytest.mark.parametrize(
    "change",
    [
        properties("some.unknown", {"property": 1}),
        properties("linux.unknown", 1),
        properties("annotations", {"org.nabla-linux.unknown": "x"}),
        properties("windows", {"layerFolders": ["x"]}),
        properties("linux.seccomp", {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}),
        properties("process.apparmorProfile", "x"),
        properties("process.selinuxLabel", "x"),
        properties("linux.mountLabel", "x"),
        properties("linux.rootfsPropagation", "slave"),
        properties("linux.personality", {"domain": "LINUX"}),
        properties(
            "linux.resources",
            {
                "devices": [{"allow": False, "access": "rwm"}],
                "blockIO": {"weight": 0, "x": None},
                "memory": {"limit": -1},
            },
        ),
        properties("linux.devices", [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
        properties("linux.uidMappings", []),
        properties("hooks", None),
    ],
)
def test_accepted(bundle: Bundle, change: Change) -> None:
    """Properties that are unknown, empty, or without effect on a VM."""
    change(bundle.config)
    assert bundle.says("echo ran") == "ran\n"


def test_the_page_lists_the_rules(bundle: Bundle) -> None:
    """Tables and options in docs/oci-runtime.md are those of the program."""
    page = (ROOT / "docs" / "oci-runtime.md").read_text()
    assert bundle.check("--rules") in page
    assert bundle.check("--manual") in page


REQUIREMENTS = tomllib.loads((OCI_SRC / "requirements.toml").read_text())["requirement"]


def test_each_requirement_names_its_test() -> None:
    """Every MUST of the specification is kept, refused, or does not concern a VM, and a test shows it."""
    assert len(REQUIREMENTS) >= 60
    missing = []
    for row in REQUIREMENTS:
        assert set(row) == {"where", "must", "verdict", "test"}, row
        assert row["verdict"] in ("kept", "refused", "not for VMs"), row
        file, _, name = row["test"].partition("::")
        text = (TESTS / "integration" / file).read_text()
        if not re.search(rf"^def {name}\(", text, re.MULTILINE):
            missing.append(row["test"])
    assert missing == []
    pairs = [(row["where"], row["must"]) for row in REQUIREMENTS]
    assert len(pairs) == len(set(pairs))


def test_requirements_of_all_parts() -> None:
    assert {row["where"].split("#")[0] for row in REQUIREMENTS} == {"runtime", "config", "config-linux", "bundle"}


def test_sources_of_refusals_are_known() -> None:
    """Each message of the tables in rules.c has a case here or in the other tests."""
    source = (OCI_SRC / "rules.c").read_text()
    table = source[source.index("} refused[] = {") : source.index("const struct namespace_rule")]
    names = re.findall(r'\{"[a-z.]*", "(\w+)"', table)
    cases = Path(__file__).read_text()
    assert len(names) >= 10
    assert [name for name in names if name not in cases] == []
