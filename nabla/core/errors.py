# SPDX-License-Identifier: Apache-2.0
"""Errors which the user can repair: each says what is wrong in one line and, in `hint`, what to do about it.

Exit codes of the whole program: 2 for every `NablaError`, 1 for a bug (any other exception), 130 when interrupted.
Nothing in this package calls `sys.exit`; only the top level turns an error into text and a code.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_USER = 2
EXIT_INTERRUPTED = 130


class NablaError(Exception):
    """Base of all errors that are told in plain words instead of a traceback.

    `message`: one line, the cause.  `hint`: what the user can do; may have several lines, may be empty.
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
    """A recipe or image description is not valid; the message names file, line and key."""


class FetchError(NablaError):
    """No origin of a source could deliver the file."""


class OfflineError(FetchError):
    """The file is not in the cache and connections are forbidden."""


class ChecksumError(FetchError):
    """A file has another sha256 or size than the recipe says."""


class SignatureError(FetchError):
    """An OpenPGP signature is missing, broken, or of another key."""


class DiskFullError(NablaError):
    """No space (or quota, or file size limit) left while writing."""


class HostError(NablaError):
    """The host lacks a program or a kernel feature."""


class PatchError(NablaError):
    """A patch of a series does not apply."""


class ConfigError(NablaError):
    """A configuration option did not survive, or a setting makes no sense."""


class ImageError(NablaError):
    """A file system image could not be made or is damaged."""


class VerifyError(NablaError):
    """An artifact is not what it must be."""


class LockError(NablaError):
    """A committed lock file is malformed or does not fit what was found."""


class CommandError(NablaError):
    """A child process failed; the hint holds the last lines of its output, in `output` too, and a command to paste."""

    def __init__(self, message: str, hint: str = "", *, returncode: int = 1, output: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.returncode = returncode
        self.output = tuple(output)

    def __reduce__(self) -> tuple[object, ...]:
        # doit -n sends exceptions between processes; the default would lose the keyword argument.
        return (_command_error, (self.message, self.hint, self.returncode, self.output))


def _command_error(message: str, hint: str, returncode: int, output: Sequence[str]) -> CommandError:
    return CommandError(message, hint, returncode=returncode, output=output)
