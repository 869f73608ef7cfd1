# SPDX-License-Identifier: Apache-2.0
"""The form of an entry at `/ac/<key>`: an ActionResult of the Remote Execution API, as Bazel's caches require.

Servers such as bazel-remote accept no other value there: each named blob must exist, and a `worker` must be named, or
the server rewrites the message. nabla uses only two fields: `stdout_raw` contains the record, `stderr_raw` its
signature. Everything else repeats the record for such servers and is not read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

WORKER = "nabla"
_OPTIONAL, _REPEATED = 1, 3
_STRING, _BYTES, _INT64, _BOOL, _MESSAGE = 9, 12, 3, 8, 11
# Name of a message -> its fields: name, number, type, label, name of the message. Numbers are those of
# build.bazel.remote.execution.v2; unknown fields of a message are ignored.
_MESSAGES: dict[str, tuple[tuple[str, int, int, int, str], ...]] = {
    "Digest": (("hash", 1, _STRING, _OPTIONAL, ""), ("size_bytes", 2, _INT64, _OPTIONAL, "")),
    "OutputFile": (
        ("path", 1, _STRING, _OPTIONAL, ""),
        ("digest", 2, _MESSAGE, _OPTIONAL, "Digest"),
        ("is_executable", 4, _BOOL, _OPTIONAL, ""),
    ),
    "ExecutedActionMetadata": (("worker", 1, _STRING, _OPTIONAL, ""),),
    "ActionResult": (
        ("output_files", 2, _MESSAGE, _REPEATED, "OutputFile"),
        ("stdout_raw", 5, _BYTES, _OPTIONAL, ""),
        ("stderr_raw", 7, _BYTES, _OPTIONAL, ""),
        ("execution_metadata", 9, _MESSAGE, _OPTIONAL, "ExecutedActionMetadata"),
    ),
}


class MalformedError(Exception):
    """The bytes are not an ActionResult."""


def encode(record: bytes, signature: bytes, blobs: Iterable[tuple[str, str, int]]) -> bytes:
    """Return the message. `blobs`: name, sha256 and size of each blob."""
    message = _message()()
    for name, sha256, size in blobs:
        file = message.output_files.add()
        file.path = name
        file.digest.hash = sha256
        file.digest.size_bytes = size
    message.stdout_raw = record
    message.stderr_raw = signature
    message.execution_metadata.worker = WORKER
    return bytes(message.SerializeToString(deterministic=True))


def decode(data: bytes) -> tuple[bytes, bytes]:
    """Return the record and the signature of a message; either may be empty. Raises `MalformedError`."""
    from google.protobuf.message import DecodeError

    message = _message()()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError(str(error)) from error
    return bytes(message.stdout_raw), bytes(message.stderr_raw)


@functools.cache
def _message() -> Any:
    # Imported on demand: most runs use no store.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file: Any = descriptor_pb2.FileDescriptorProto(name="nabla.proto", package="nabla", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, other in fields:
            message.field.add(
                name=field, number=number, type=kind, label=label, type_name=f".nabla.{other}" if other else None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nabla.ActionResult"))
