# SPDX-License-Identifier: Apache-2.0
"""The repository of packages: recipes with a [package] table, built, packaged, indexed and signed.

fetch:<recipe>, musl, toolchain:packaging, packages:<each package that it is built against>
    -> packages:<recipe> -> out/packages/<recipe>.json, out/apk/x86_64/*.apk -> apk:index -> out/apk/x86_64/Packages.adb
fetch:alpine-base -> apk:tools (the real apk)      apk:key -> out/apk/keys (the public half of the user's key)
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nabla.build import source_tree
from nabla.core import artifacts
from nabla.core.artifacts import Tree
from nabla.core.paths import MUSL
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.fs import alpine_tools
from nabla.packages import builder, catalog, repository
from nabla.sources.recipe import PackageRecipe
from verify.release.layout import keys_dir


def task_apk() -> Iterator[TaskDict]:
    """Prepare apk and the key, and write the index."""
    yield task.group("apk", "the real apk, the key that signs, and the index of all packages")
    yield task.step(
        "apk:tools",
        alpine_tools.make_apk_tools,
        doc="extract apk from the Alpine base",
        inputs=[artifacts.source_record(artifacts.BASE)],
        outputs=[artifacts.APK_TOOLS],
        cacheable=True,
        remote=False,
        repeated=True,
    )
    yield task.step(
        "apk:key",
        repository.show_key,
        doc="generate the user's key, once, and copy the public key to out/apk/keys",
        outputs=[artifacts.PUBLIC_KEY],
        config=str(keys_dir()),
        checks=[repository.same_key],
    )
    records = [artifacts.package_record(name) for name in catalog.names()]
    yield task.step(
        "apk:index",
        repository.make_index,
        doc="check all packages against each other and write the signed index",
        inputs=[
            artifacts.APK_TOOLS,
            artifacts.PUBLIC_KEY,
            artifacts.source_record(artifacts.BASE),
            *records,
            *catalog.all_apks(),
        ],
        outputs=[artifacts.INDEX],
    )


def task_packages() -> Iterator[TaskDict]:
    """Build the packages of the repository."""
    catalog.check_graph()
    yield task.group("packages", "build all packages of the repository and its index", after=["apk:index"])
    for loaded in catalog.all_recipes():
        # A separate task does not belong to the group.
        yield task.ungrouped(_package_step(loaded)) if loaded.optional else _package_step(loaded)


def tested_tasks() -> Iterator[str]:
    """Yield the tasks of the optional packages that a test installs: light ones."""
    yield from ("packages:dash", "packages:tree")


def task_digests_packages() -> Iterator[TaskDict]:
    """Copy the packages without their signatures."""
    yield task.ungrouped(
        task.step(
            "digests:packages",
            repository.unsign,
            doc="all packages and their index without signatures",
            inputs=[artifacts.APK_TOOLS, *catalog.all_apks()],
            outputs=[artifacts.REFERENCE_REPOSITORY],
            # apk compresses all packages again.
            cacheable=True,
            # Its inputs are signed by the user's key, which no other machine has.
            remote=False,
        )
    )


def _package_step(loaded: PackageRecipe) -> TaskDict:
    name = loaded.name
    tree = catalog.built_tree(loaded)
    table = msgspec.to_builtins(loaded.package)
    return task.step(
        f"packages:{name}",
        builder.make_packages,
        doc=f"{name} {catalog.version(loaded)}: {loaded.summary}",
        inputs=[
            *source_tree.source_inputs(loaded),
            *loaded.patches,
            *builder.extra_files(loaded),
            *(artifacts.BUILD_ROOT, artifacts.PACKAGING_ROOT),
            *task.source_files(builder.CROSS),
            *([Tree(MUSL)] if name != catalog.LIBC else []),
            artifacts.APK_TOOLS,
            artifacts.PUBLIC_KEY,
            *([tree] if tree else []),
            *(artifacts.package_record(each) for each in catalog.needs(name)),
        ],
        outputs=[artifacts.package_record(name), *catalog.apks(loaded)],
        config=[loaded.version, loaded.license, loaded.summary, loaded.homepage, table, list(catalog.closure(name))],
        args=[name],
        # The public key is an input: a user with another key has other results.
        cacheable=True,
        # The builder sends only the compilation.
        remote=False,
        repeated=True,
    )
