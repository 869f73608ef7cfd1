# SPDX-License-Identifier: Apache-2.0
"""Scripts of build steps: they do the same with and without the report of a failed line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nabla.core.errors import CommandError
from nabla.sandbox import script
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe

EVERYTHING = r"""# a comment
true \
  && echo one
cat <<X
echo 'no command
X
twice() {
  echo "$1"
  echo "$1"
}
twice 'two
lines' | cat
for i in 1 2
do
  echo $i
done
if false; then
  exit 9
else
  echo else
fi
cat <<-'END'
	indented
	END
echo "a \\
b" >&2
"""


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-euc", text], capture_output=True, text=True, check=False)


def test_a_good_script_does_the_same() -> None:
    plain, traced = run(EVERYTHING), run(script.traced(EVERYTHING))
    assert (traced.returncode, traced.stdout, traced.stderr) == (0, plain.stdout, plain.stderr)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("false", 1),
        ("true\nfalse\ntrue", 2),
        ("# why\n\ntrue && \\\n  false", 3),
        ("f() {\n  false\n}\ntrue\nf", 5),
        ("cat <<X\nfalse\nX\nexit 3", 4),
        ("for i in 1 2\ndo\n  [ $i = 1 ]\ndone", 1),
        ("echo '\nfalse\n'\n$unset", 4),
        ("true\n(exit 4)", 2),
    ],
)
def test_line_of_a_failure(text: str, line: int) -> None:
    """The line at which the failed command of the outermost level begins."""
    plain, traced = run(text), run(script.traced(text))
    assert plain.returncode == traced.returncode != 0
    assert script.failed_line(traced.stderr.splitlines()) == line


def test_output_without_a_report() -> None:
    assert script.failed_line(["make: *** [x] Error 1"]) is None
    assert script.failed_line([]) is None
    assert script.without_report(["a", "this step failed in line 3"]) == ["a"]


def test_every_step_of_every_recipe_stays_a_script() -> None:
    for name in recipe.names():
        loaded = recipe.load(name)
        for part in (loaded.build, loaded.package):
            for field in getattr(part, "__struct_fields__", ()):
                text = getattr(part, field)
                if isinstance(text, str) and "\n" in text:
                    result = subprocess.run(["sh", "-n", "-c", script.traced(text)], capture_output=True, check=False)
                    assert result.returncode == 0, (name, field, result.stderr)


def test_failure_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> None:
    """Step, line, output, log and a command to continue; the sandbox's command line is in the log alone."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    log = tmp_path / "log"
    sandbox = Sandbox((Bind(tmp_path, "/build", writable=True),), shell_command="./doit.sh shell jq")
    sandbox.run("echo good", title="jq: configure", log=log)
    with pytest.raises(CommandError) as caught:
        sandbox.run("cd /build\necho first\n./configure --prefix=/usr", title="jq: build", log=log)
    assert caught.value.message == "jq: build failed with exit status 127"
    heading, place_of_log, first, reason, command = caught.value.hint.splitlines()
    assert heading == "line 3 of the step: ./configure --prefix=/usr"
    assert place_of_log == f"last lines of {log}:"
    assert first == "  first"
    assert "./configure: not found" in reason
    assert command == "to inspect it: ./doit.sh shell jq"
    assert "bwrap" in log.read_text()
