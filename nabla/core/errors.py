# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can fix: each has a message of one line with the cause, and a `hint` with the remedy.

Exit codes: 2 for a `NablaError`, 1 for a bug (any other exception), 130 after an interruption. Only the top level turns
an error into text and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_USER = 2
EXIT_INTERRUPTED = 130


class NablaError(Exception):
    """Base of all errors that are reported as a message instead of a traceback.

    `message`: the cause, one line. `hint`: the remedy, any number of lines.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def render(self) -> str:
        """Return the text for the terminal: `error: …`, then one `hint: …` line for each line of the hint."""
        lines = [f"error: {self.message}"]
        lines += [f"hint: {line}" if i == 0 else f"      {line}" for i, line in enumerate(self.hint.splitlines())]
        return "\n".join(lines)


class RecipeError(NablaError):
    """A recipe or image description is invalid; the message names file, line and key."""


class FetchError(NablaError):
    """No origin of a source delivered the file."""


class OfflineError(FetchError):
    """The file is not in the cache and connections are forbidden."""


class ChecksumError(FetchError):
    """A file differs from the sha256 or size in the recipe."""


class SignatureError(FetchError):
    """An OpenPGP signature is missing, bad, or by another key."""


class DiskFullError(NablaError):
    """The disk is full, or a quota or file size limit is reached."""


class HostError(NablaError):
    """The host lacks a program or a kernel feature."""


class PatchError(NablaError):
    """A patch of a series does not apply."""


class ConfigError(NablaError):
    """A configuration option did not survive, or a setting is invalid."""


class ImageError(NablaError):
    """A file system image cannot be written or is damaged."""


class VerifyError(NablaError):
    """A check of an artifact failed."""


class LockError(NablaError):
    """A committed lock file is malformed or stale."""


class CommandError(NablaError):
    """A child process failed. The hint contains the last lines of its output (also `output`) and a command to paste."""

    def __init__(self, message: str, hint: str = "", *, returncode: int = 1, output: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.returncode = returncode
        self.output = tuple(output)

    def __reduce__(self) -> tuple[object, ...]:
        # doit -n pickles exceptions; the default would lose the keyword arguments.
        return (_command_error, (self.message, self.hint, self.returncode, self.output))


def _command_error(message: str, hint: str, returncode: int, output: Sequence[str]) -> CommandError:
    return CommandError(message, hint, returncode=returncode, output=output)
