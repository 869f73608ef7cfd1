# SPDX-License-Identifier: Apache-2.0
"""Variants as data: what a matrix may change, and builds of small checkouts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.matrix import variants
from tests.conftest import ROOT, Checkout

MODULE = """
from nabla.core.paths import OUT, ROOT
from nabla.engine.action import Job
from nabla.engine.task import TaskDict, step

def task_made() -> TaskDict:
    return step("made", make, doc="reads data", inputs=sorted((ROOT / "recipes").glob("*.txt")), outputs=[OUT / "made"],
                cacheable=True)

def make(job: Job) -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "recipes").glob("*.txt")))
    if "bad" in text:
        job.run(["sh", "-c", "echo the reason; exit 1"])
    job.out(OUT / "made").write_text(text)
"""
MATRIX = """
tasks = ["made"]
test = ["grep", "-q", "one", "out/made"]
without = ["recipes/*.txt"]
[[variant]]
name = "other"
summary = "another <text>"
[[variant.replace]]
file = "recipes/a.txt"
old = "one"
new = "one, and more"
[[variant]]
name = "failing"
[[variant.append]]
file = "recipes/new.txt"
text = "bad"
"""


@pytest.fixture
def project(checkout: Checkout) -> Checkout:
    shutil.copytree(ROOT / "nabla/matrix", checkout.root / "nabla/matrix", dirs_exist_ok=True)
    shutil.copytree(ROOT / "verify", checkout.root / "verify")
    checkout.task_module("made", MODULE)
    checkout.write("recipes/a.txt", "one\n")
    checkout.write("recipes/b.txt", "two\n")
    checkout.write(".gitignore", "/out/\n__pycache__/\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@nabla.invalid"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run(["git", *identity, *words], cwd=checkout.root, check=True)
    return checkout


def test_matrix(project: Checkout) -> None:
    project.write("recipes/b.txt", "a change that is not committed\n")
    project.write("matrix.toml", MATRIX)
    output = project.doit("matrix", "--parallel", "2", "matrix.toml", status=2)
    assert "3 of 5 variants succeeded" in output and "2 variants failed: failing, without-a.txt" in output, output
    folder = project.root / "out/matrix"
    results = {each["name"]: each for each in json.loads((folder / "results.json").read_text())}
    assert [(name, each["step"]) for name, each in results.items()] == [
        ("unchanged", ""),
        ("other", ""),
        ("failing", "build"),
        ("without-a.txt", "test"),
        ("without-b.txt", ""),
    ]
    assert any("the reason" in line for line in results["failing"]["end"])
    assert (folder / "other/out/made").read_text() == "one, and more\na change that is not committed\n"
    assert (folder / "without-b.txt/out/made").read_text() == "one\n"
    page = (folder / "index.html").read_text()
    assert "another &lt;text&gt;" in page and "3 of 5 variants" in page
    # The checkout itself is as before, and a second run starts from it again.
    assert (project.root / "recipes/a.txt").read_text() == "one\n"
    project.write("matrix.toml", re.sub(r"without.*\n", "", MATRIX.split('[[variant]]\nname = "failing"')[0]))
    output = project.doit("matrix", "matrix.toml")
    assert "2 of 2 variants succeeded" in output, output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = []", "tasks"),
        ('tasks = ["all"]\nwithout = ["recipes/*.absent"]', "no file matches"),
        ('tasks = ["all"]\n[[variant]]\nname = "unchanged"', "two variants"),
        ('tasks = ["all"]\n[[variant]]\nname = "a"\nremove = ["nabla/core/log.py"]', "in none of the folders"),
        ('tasks = ["all"]\n[[variant]]\nname = "a"\nremove = ["recipes/../dodo.py"]', "in none of the folders"),
        ('tasks = ["all"]\n[[variant]]\nname = "../a"', "name"),
        ('tasks = ["all"]\nother = 1', "other"),
    ],
)
def test_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        variants.read(path)


def test_replacements_occur_once(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/file").write_text("a a")
    variant = variants.Variant("one", replace=(variants.Replace("recipes/file", "a", "b"),))
    with pytest.raises(ConfigError, match="2 times"):
        variants.apply(variant, tmp_path)
    with pytest.raises(ConfigError, match="there is no file"):
        variants.apply(variants.Variant("two", remove=("recipes/absent",)), tmp_path)


def test_the_matrix_of_the_system_applies(tmp_path: Path) -> None:
    """Every change of matrices/system.toml fits the present files."""
    matrix = variants.read(ROOT / "matrices/system.toml")
    for variant in matrix.variants:
        root = tmp_path / variant.name
        for folder in ("recipes", "kernel-config"):
            shutil.copytree(ROOT / folder, root / folder)
        variants.apply(variant, root)
    assert len(matrix.variants) == 9
