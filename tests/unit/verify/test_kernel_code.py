# SPDX-License-Identifier: Apache-2.0
"""verify.kernel_code on instructions assembled for the test by the build root's own assembler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nabla.sandbox.bwrap import Bind, Sandbox
from verify import kernel_code
from verify.kernel_code import Allowance, CheckError

# function -> (assembly, kind)
FUNCTIONS = {
    "plain": ("mov %rax, %rbx; rep movsb; lock xadd %rax, (%rdi); nopw %cs:0(%rax,%rax,1); iretq; pause", None),
    "flags": ("bsf %rax, %rbx; pushfq; popfq; cpuid; rdtsc; lfence; syscall_like: call syscall_like", None),
    "sse": ("movaps %xmm0, (%rdi)", "vector"),
    "avx": ("vmovdqa %ymm15, (%rdi)", "vector"),
    "avx512": ("vmovdqa64 %zmm31, (%rdi)", "vector"),
    "mmx": ("movq %mm1, (%rdi)", "vector"),
    "mask": ("kmovq %k3, %rax", "vector"),
    "upper": ("vzeroupper", "vector"),
    "x87": ("fldl (%rdi)", "x87"),
    "wait": ("fwait", "x87"),
    "init": ("fninit", "x87"),
    "xsave": ("xsave64 (%rdi)", "state"),
    "fxrstor": ("fxrstor64 (%rdi)", "state"),
    "mxcsr": ("ldmxcsr (%rdi)", "state"),
    "canary": ("mov %fs:0x28, %rax", "segment"),
    "percpu": ("incl %gs:(%rdi)", "segment"),
    "prefix": ("fs; lodsb", "segment"),
    "setfs": ("wrfsbase %rax", "base"),
    "getgs": ("rdgsbase %rax", "base"),
    "host": ("syscall", "syscall"),
    "host32": ("int $0x80", "syscall"),
    "enter": ("sysenter", "syscall"),
    "invalid": (".byte 0x06", "unknown"),
    "cloned.constprop.0": ("syscall", "syscall"),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, user_cache: Path) -> Path:
    """A linked file of all these functions, and beside it its disassembly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NABLA_CACHE", str(user_cache))
        folder = tmp_path_factory.mktemp("code")
        text = "".join(
            f'.globl "{name}"\n.type "{name}", @function\n"{name}": {code}\nret\n.size "{name}", .-"{name}"\n'
            for name, (code, _) in FUNCTIONS.items()
        )
        (folder / "x.s").write_text(f".text\n{text}")
        script = "as x.s -o x.o; ld -shared x.o -o image; objdump -d -w --no-show-raw-insn image >image.s"
        Sandbox((Bind(folder, "/build", writable=True),)).run(script, title="assemble")
    return folder / "image"


def listing(image: Path) -> list[str]:
    return image.with_suffix(".s").read_text().splitlines()


def test_every_instruction_gets_its_kind(image: Path) -> None:
    result = kernel_code.check(listing(image), [])
    kinds = {use.function: use.kind for use in result.forbidden}
    expected = {name.partition(".")[0]: kind for name, (_, kind) in FUNCTIONS.items() if kind}
    assert kinds == expected
    assert kernel_code.host_callers(result) == ["cloned", "enter", "host", "host32"]
    assert result.functions >= len(FUNCTIONS)


def test_allowances(image: Path) -> None:
    everything = Allowance(("*",), tuple(kind for kind in kernel_code.KINDS), "for the test")
    result = kernel_code.check(listing(image), [everything])
    assert not result.forbidden
    assert not result.idle
    host = Allowance(("host*", "gone"), ("syscall", "x87"), "for the test")
    result = kernel_code.check(listing(image), [host])
    assert {use.function for use in result.allowed} == {"host", "host32"}
    assert result.idle == ["function gone", "kind x87"]
    elsewhere = Allowance(("*",), ("syscall",), "for the test", ".init.text")
    assert not kernel_code.check(listing(image), [elsewhere]).allowed
    here = Allowance(("*",), ("syscall",), "for the test", ".text")
    assert len(kernel_code.check(listing(image), [here]).allowed) == 4


def test_policy_of_the_repository_is_well_formed() -> None:
    for entry in kernel_code.read_policy(kernel_code.POLICY):
        assert entry.functions
        assert entry.kinds


@pytest.mark.parametrize(
    "text",
    [
        "[[allow]]\nfunctions = ['a']\nkinds = ['x87']",
        "[[allow]]\nfunctions = 'a'\nkinds = ['x87']\nreason = 'long enough reason'",
        "[[allow]]\nfunctions = ['a']\nkinds = ['x88']\nreason = 'long enough reason'",
        "[[allow]]\nfunctions = ['a']\nkinds = ['x87']\nreason = 'short'",
        "[[allow]",
    ],
)
def test_malformed_policy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(CheckError):
        kernel_code.read_policy(path)


def test_command_line(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    words = ["--policy", str(policy), "--disassembly"]
    assert kernel_code.main([*words, "--json", str(image.with_suffix(".s"))]) == 1
    data = json.loads(capsys.readouterr().out)
    assert "host" in data["host_calls"]
    assert kernel_code.main([*words, str(image.with_suffix(".s"))]) == 1
    assert "FORBIDDEN  vector" in capsys.readouterr().out
    empty = tmp_path / "empty"
    empty.write_text("")
    assert kernel_code.main([*words, str(empty)]) == 2
    assert kernel_code.main(["--objdump", str(tmp_path / "none"), str(image)]) == 2
