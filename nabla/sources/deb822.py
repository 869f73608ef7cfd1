# SPDX-License-Identifier: Apache-2.0
"""Debian's control files: paragraphs of fields (deb822(5))."""

from __future__ import annotations

import re
from email.parser import HeaderParser


def paragraphs(text: str) -> list[dict[str, str]]:
    """Return the fields of each paragraph by lower-case names, without comments.

    Lines of a field are separated by newlines, without the indentation of continuation lines.
    """
    lines = "\n".join(line for line in text.split("\n") if not line.startswith("#"))
    parsed = (HeaderParser().parsestr(part.lstrip("\n")) for part in re.split(r"\n[ \t]*\n", lines))
    return [
        {name.lower(): "\n".join(map(str.strip, value.split("\n"))) for name, value in fields.items()}
        for fields in parsed
        if fields.keys()
    ]
