# SPDX-License-Identifier: Apache-2.0
"""launcher/policy.toml is short, and a wrong policy is one clear error with file, line and key."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.policy import model


def test_the_policy_is_short() -> None:
    assert len(model.load().calls) <= 12
    base = [call for call in model.load().calls if not set(call.features) & {"novdso", "nofsgsbase"}]
    assert len(base) <= 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "ppoll"', 'name = "pppoll"', "call[1].name: x86-64 has no system call 'pppoll'"),
        ('name = "fdatasync"', 'name = "ppoll"', "call[7].name: the call ppoll is listed twice"),
        ('name = "ppoll"', 'name = "ppoll"\nnumber = 271', "call[1].number: there is no such key"),
        ("[feature.base]", "[feature.base]\nwhy = 1", "feature.base: Object contains unknown field `why`"),
        ("[feature.base]", "[other]\n[feature.base]", "other: there is no such key"),
        ('default = "kill"', 'default = "allow"', "default: "),
        ('default = "kill"', "", "the key `default` is missing"),
        ('features = ["novdso"]', 'features = ["fast"]', "call[8].features: there is no feature 'fast'"),
        ('features = ["novdso"]', "features = []", "call[8].features: "),
        ('features = ["novdso"]', 'features = ["base"]', "feature.novdso: no call belongs to this feature"),
        ('["base", "net"]', '["base", "base"]', "call[1].features: an item is listed twice"),
        ('from = ["kernel", "vdso"]', 'from = ["guest"]', "call[8].from[1]: "),
        ('"FSGSBASE_MISSING"', '"SMEP"', "feature.nofsgsbase.constant: there is no constant 'SMEP'"),
        ("STREAM_IN = ", "INPUT = ", "descriptors.INPUT: there is no set of descriptors 'INPUT'"),
        (re.compile(r"^STREAM_IN = .*$", re.M), "", "descriptors: the set STREAM_IN has no description"),
        (re.compile(r'^reason = "write .*$', re.M), "", "call[7]: the key `reason` is missing"),
        (re.compile(r'^reason = "write .*$', re.M), 'reason = ""', "call[7].reason: "),
        ('file = "arch/um/nommu/host.c"', 'file = "host.c"', "call[2].file: "),
        ("nfds = { at_most = 16 }", "", "call[1].allow[1]: the argument `nfds` has no rule"),
        ("nfds = { at_most = 16 }", "nfds = 16", "call[1].allow[1].nfds: a rule is a table with one key"),
        ("nfds = { at_most = 16 }", "nfds = {}", "call[1].allow[1].nfds: a rule is a table with one key"),
        ("nfds = { at_most = 16 }", "nfds = { at_most = 16, equals = 2 }", "call[1].allow[1].nfds: a rule is a table"),
        (
            "nfds = { at_most = 16 }",
            "nfds = { most = 4 }",
            "call[1].allow[1].nfds.most: there is no kind of rule 'most'",
        ),
        ("nfds = { at_most = 16 }", "nfds = { at_most = -1 }", "call[1].allow[1].nfds.at_most: -1 is invalid"),
        ("nfds = { at_most = 16 }", "nfds = { at_most = 4294967296 }", "call[1].allow[1].nfds.at_most: 4294967296 is"),
        ("nfds = { at_most = 16 }", 'nfds = { any = "" }', "call[1].allow[1].nfds.any: '' is invalid"),
        ("nfds = { at_most = 16 }", "nfds = { not_negative = false }", "call[1].allow[1].nfds.not_negative: False is"),
        ("nfds = { at_most = 16 }", "nfds = { one_of = [] }", "call[1].allow[1].nfds.one_of: [] is invalid"),
        ("nfds = { at_most = 16 }", 'nfds = { member = "DISKS" }', "call[1].allow[1].nfds.member: there is no set"),
        (
            "nfds = { at_most = 16 }",
            'nfds = { equals = "DENY" }',
            "call[1].allow[1].nfds.equals: there is no value 'DENY'",
        ),
        (
            "nfds = { at_most = 16 }",
            "nfds = { at_most = 16 }\nmore = { equals = 1 }",
            "call[1].allow[1].more: the call has",
        ),
        (re.compile(r'^what = "wait .*$', re.M), "", "call[1].allow[1].what: describe the permitted calls"),
        (re.compile(r'^what = "wait .*$', re.M), "what = 1", "call[1].allow[1].what: describe the"),
        ('["code", "address"]', '["code", "code"]', "call[10].arguments: an item is listed twice"),
        ('["code", "address"]', '["code", "what"]', "call[10].arguments: `what` is the key"),
        ('["code", "address"]', '["a", "b", "c", "d", "e", "f", "g"]', "call[10].arguments: "),
        ("\n[[call.allow]]", "\n[[call.allow]", "not valid TOML"),
    ],
)
def test_a_wrong_policy_is_one_clear_error(tmp_path: Path, old: str | re.Pattern[str], new: str, message: str) -> None:
    text = model.POLICY.read_text()
    changed = old.sub(new, text, count=1) if isinstance(old, re.Pattern) else text.replace(old, new, 1)
    assert changed != text
    path = tmp_path / "policy.toml"
    path.write_text(changed)
    with pytest.raises(ConfigError) as caught:
        model.load(path)
    assert message in str(caught.value)
    assert re.match(rf"{re.escape(str(path))}:\d+: ", str(caught.value))
    assert "\n" not in str(caught.value)


def test_an_absent_policy_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        model.load(tmp_path / "none.toml")


def test_a_call_without_a_way_to_make_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    shutil.copy(model.POLICY, path)
    text = path.read_text()
    path.write_text(text[: text.rindex("[[call.allow]]")])
    with pytest.raises(ConfigError, match=r"call\[10\]: the key `allow` is missing"):
        model.load(path)
