# SPDX-License-Identifier: Apache-2.0
"""The cross toolchain of packages: C and C++ for the guest, refused options, and output without build paths."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from nabla.core import paths
from nabla.core.errors import CommandError
from nabla.engine.action import Job
from nabla.packages import builder, catalog
from nabla.packages.builder import ENVIRONMENT, TRIPLET
from nabla.sandbox import lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import pie

from .vm import Vm

CACHE = paths.cache_dir()
LIBRARY = """
#include <stdexcept>
#include <thread>
#include <vector>
#include <atomic>
thread_local int own = 5;
std::atomic<int> sum;
void thrower(int n) { if (n == 3) throw std::out_of_range("three"); }
int count() {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) threads.emplace_back([i] { own += i; sum += own; });
    for (auto &thread : threads) thread.join();
    return sum;
}
"""
PROGRAM = """
#include <exception>
#include <filesystem>
#include <future>
#include <iostream>
#include <random>
#include <regex>
#include <stdexcept>
void thrower(int);
int count();
struct Guard { ~Guard() { std::cout << "unwound "; } };
int main() {
    try { Guard guard; thrower(3); } catch (const std::exception &error) { std::cout << error.what() << ' '; }
    auto later = std::async(std::launch::async, [] { thrower(3); return 1; });
    try { later.get(); } catch (const std::out_of_range &) { std::cout << "in a thread "; }
    std::cout << count() << ' ';
    std::smatch match;
    const std::string text = "nabla-6.1";
    std::cout << std::regex_match(text, match, std::regex("(\\\\w+)-(\\\\d+).*")) << match[2] << ' ';
    namespace fs = std::filesystem;
    fs::create_directories("/tmp/cross/a/b");
    std::cout << std::distance(fs::recursive_directory_iterator("/tmp/cross"), {}) << ' ';
    std::cout << fs::remove_all("/tmp/cross");
    std::random_device device;
    std::cout << (device() == device() && device() == device() ? " constant" : " random") << std::endl;
}
"""
SAYS = "unwound three in a thread 26 16 2 3 random\n"


@pytest.fixture(scope="module")
def sysroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libc, libgcc and libstdc++."""
    root = tmp_path_factory.mktemp("cross") / "sysroot"
    builder.compose_sysroot(Job("cross", root.with_name("log")), root, ["libgcc", "libstdc++"])
    return root


@pytest.fixture
def sandbox(sysroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox of package builds with sources to compile."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    (tmp_path / "library.cc").write_text(LIBRARY)
    (tmp_path / "program.cc").write_text(PROGRAM)
    (tmp_path / "x.c").write_text("#include <assert.h>\nint main(int c, char **v) { assert(c < 9); return !v; }\n")
    binds = (Bind(tmp_path, "/build", writable=True), Bind(sysroot, "/sysroot"))
    return Sandbox(binds, ENVIRONMENT, "/build", lockfile.PACKAGING)


@pytest.fixture
def programs(sandbox: Sandbox, tmp_path: Path) -> Path:
    """One C++ program in a dynamic and a static form, and its library."""
    script = """
        $CXX $CXXFLAGS -std=c++17 -fPIC -shared library.cc -o libown.so
        $CXX $CXXFLAGS -std=c++17 program.cc -L. -lown -o dynamic
        $CXX $CXXFLAGS -std=c++17 -static-pie program.cc library.cc -o static
    """
    sandbox.run(script, title="compile")
    return tmp_path


def test_cxx_on_the_host(programs: Path, sysroot: Path) -> None:
    assert [pie.examine(programs / name).problems for name in ("dynamic", "static", "libown.so")] == [(), (), ()]
    loader: list[str | Path] = [sysroot / "lib/ld-musl-x86_64.so.1", "--library-path", f"{programs}:{sysroot}/usr/lib"]
    dynamic = subprocess.run([*loader, programs / "dynamic"], capture_output=True, text=True, check=True)
    assert dynamic.stdout == SAYS
    static = subprocess.run([programs / "static"], capture_output=True, text=True, check=True)
    assert static.stdout == SAYS


def test_cxx_in_the_guest(programs: Path, sysroot: Path, minimal: Vm) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in (programs / "dynamic", programs / "static", programs / "libown.so"):
            tar.add(path, path.name)
        for name in ("libstdc++.so.6", "libgcc_s.so.1"):
            tar.add((sysroot / "usr/lib" / name).resolve(), name)
    script = "cd /tmp && tar x && LD_LIBRARY_PATH=. ./dynamic && ./static"
    result = minimal.but(memory="256M").run("/bin/sh", "-c", script, stdin=archive.getvalue())
    assert result.status == 0, result.describe()
    assert result.output == SAYS * 2


def test_same_bytes_in_two_folders(sandbox: Sandbox, tmp_path: Path) -> None:
    script = """
        mkdir -p one two/three
        for folder in one two/three; do
            cp program.cc library.cc x.c $folder
            (cd $folder && export CCACHE_DISABLE=1
            $CXX $CXXFLAGS -g -std=c++17 -DWHERE=__FILE__ "$PWD/program.cc" library.cc -o program
            $CC $CFLAGS -g "$PWD/x.c" -o x)
        done
    """
    sandbox.run(script, title="compile")
    for name in ("program", "x"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two/three"))
        assert one == other
        assert b"/build" not in one


@pytest.mark.parametrize("flags", ["-no-pie", "-static", "-fno-pie -c", "-fno-PIC -c", "-m32 -c"])
@pytest.mark.parametrize("compiler", ["gcc", "g++", "cc", "c++"])
def test_refused(sandbox: Sandbox, tmp_path: Path, compiler: str, flags: str) -> None:
    with pytest.raises(CommandError) as caught:
        sandbox.run(f"{TRIPLET}-{compiler} {flags} x.c -o x", title="compile", log=tmp_path / "log")
    assert f"{TRIPLET}-{compiler}: error: {flags.split()[0]}" in (tmp_path / "log").read_text()
    assert "error: " in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_linker(sandbox: Sandbox, tmp_path: Path) -> None:
    """Some builds call the linker directly."""
    (tmp_path / "y.c").write_text("void _start(void) { for (;;) ; }\n")
    sandbox.run(f"$CC -c y.c -o y.o; {TRIPLET}-ld y.o -o y; {TRIPLET}-ld -shared y.o -o y.so", title="link")
    assert pie.examine(tmp_path / "y").problems == ()
    assert pie.examine(tmp_path / "y.so").problems == ()
    for word in ("-no-pie", "-static"):
        with pytest.raises(CommandError):
            sandbox.run(f"{TRIPLET}-ld {word} y.o -o z", title="link", log=tmp_path / "log")
        assert f"{TRIPLET}-ld: error: {word}" in (tmp_path / "log").read_text()


def test_hardened_by_default(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "z.c").write_text("#include <stdio.h>\nint main(void) { char b[64]; return !gets(b) + printf(b); }\n")
    script = "$CC -std=c99 -w -c z.c -o z.o; objdump -dr z.o > listing; $CC -std=c99 -w z.c -o z; readelf -n z > notes"
    sandbox.run(script, title="compile", log=tmp_path / "log")
    # Configure scripts would take this for a broken compiler.
    assert "warning" not in (tmp_path / "log").read_text()
    assert "__stack_chk_fail" in (tmp_path / "listing").read_text()
    assert "Build ID" not in (tmp_path / "notes").read_text()
    assert pie.examine(tmp_path / "z").problems == ()


def test_pkg_config_sees_the_sysroot_only(sandbox: Sandbox, sysroot: Path, tmp_path: Path) -> None:
    text = "Name: x\nDescription: x\nVersion: 3\nLibs: -L/usr/lib -lx\nCflags: -I/usr/include/x\n"
    folder = tmp_path / "own-sysroot"
    shutil.copytree(sysroot, folder, symlinks=True, copy_function=shutil.copyfile)
    (folder / "usr/lib/pkgconfig").mkdir()
    (folder / "usr/lib/pkgconfig/x.pc").write_text(text)
    here = Sandbox((sandbox.binds[0], Bind(folder, "/sysroot")), ENVIRONMENT, "/build", lockfile.PACKAGING)
    script = """
        pkg-config --list-all | cut -d' ' -f1 >all
        $PKG_CONFIG --cflags --libs x >flags
        test -n "$(/usr/bin/pkg-config --list-all)"
    """
    here.run(script, title="ask pkg-config")
    assert (tmp_path / "all").read_text() == "x\n"
    assert (tmp_path / "flags").read_text().split() == ["-I/sysroot/usr/include/x", "-lx"]


MESON = "project('x', 'c')\nexecutable('x', 'x.c', install: true)\n"
CMAKE = "cmake_minimum_required(VERSION 3.20)\nproject(x C)\nadd_executable(x x.c)\ninstall(TARGETS x)\n"
AUTOCONF = "AC_INIT([x], [1])\nAC_PROG_CC\nAC_FUNC_FORK\nAC_FUNC_MMAP\nAC_OUTPUT\n"


def test_build_systems(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "meson.build").write_text(MESON)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "configure.ac").write_text(AUTOCONF)
    script = """
        meson setup --cross-file /tools/cross/meson.ini by-meson && ninja -C by-meson
        cmake -DCMAKE_TOOLCHAIN_FILE=/tools/cross/toolchain.cmake -S . -B by-cmake && cmake --build by-cmake
        for file in config.guess config.sub install-sh; do cp /usr/share/automake-1.16/$file .; done
        autoconf && ./configure --build=$CBUILD --host=$CHOST >by-autoconf
    """
    sandbox.run(script, title="three build systems", log=tmp_path / "log")
    for folder in ("by-meson", "by-cmake"):
        finding = pie.examine(tmp_path / folder / "x")
        assert finding.problems == ()
        assert finding.interpreter == "/lib/ld-musl-x86_64.so.1"
    answers = (tmp_path / "by-autoconf").read_text()
    assert "whether we are cross compiling... yes" in answers
    assert "checking for working fork... (cached) yes" in answers
    assert "checking for working vfork... (cached) yes" in answers


def test_runtime_is_built_for_musl() -> None:
    parts = {part.name: part for name in ("libgcc", "libstdc++") for part in catalog.read_build_record(name).parts}
    assert "so:libgcc_s.so.1=1" in parts["libgcc"].provides
    assert set(parts["libstdc++"].depends) == {"so:libc.musl-x86_64.so.1", "so:libgcc_s.so.1"}
    assert any(text.startswith("so:libstdc++.so.6=6.0.30") for text in parts["libstdc++"].provides)
    assert {"usr/lib/libstdc++.a", "usr/lib/libsupc++.a"} <= set(parts["libstdc++-dev"].files)
