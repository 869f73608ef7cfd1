# SPDX-License-Identifier: Apache-2.0
"""The prose of a file: its text for people, without code, identifiers and quoted commands."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

_IZE = "recogn|organ|initial|normal|summar|synchron|serial|optim|minim|maxim|priorit|real|custom|random"
_NOUN = "bug|certificate|directory|error|frame|key|number|part|path|process"
_RECEIVER = r"an?\b|all|any|every|its|no\b|one|ordinary|other|root|th|user"

# Words and phrases that hide the subject of a sentence, have a common technical term, are not idiomatic, or are not
# American spelling. Each is a regular expression for whole words, with the term to use instead.
INSTEAD = {
    r"told|tells( of)?": "says, reports, records, shows",
    r"whoever|whom": "the user, the caller: name the subject",
    r"whatever (is|was|it)": "name the subject",
    r"meanwhile": "at the same time",
    r"of (ours|theirs|his own)": "name the owner",
    r"made of": "built from, consists of, or name the inputs",
    r"in (its|their|his) stead": "instead",
    r"as [\w' ]+ ha(s|ve) it": "as in …",
    r"circles?": "cycle",
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix, repair",
    r"for want of": "without",
    # Literal translations; English has other idioms.
    r"(go|goes|going|gone|went) on(?=[.,;:)]| (with|where|after|as|from|until|and)\b)": "continue, resume",
    r"an? \w+ of (its|their) own(?=[.,;:)])": "its own …, a separate …",
    rf"(?<!there )(is|are|was|were) no ({_NOUN})": "is not a …",
    r"(can(not)?|could|to) be had": "is available",
    r"beside other (load|work)": "with other load",
    r"(no|nobody|nothing|not) (\w+ ){0,2}any more(?! \w)": "no longer, any longer",
    r"(gave|given|gives?|giving) (\w+ ){0,2}back": "returns, frees",
    r"puts? (\w+ )?aside": "moves, renames",
    r"all that (are|has|have|is|it|they|was|were)": "everything that, all … of",
    r"another (?!rather)\w+ than": "a … other than, a different …",
    r"other (?!rather)\w+s than": "… other than",
    r"(one|two|three|four|a few) (?!or)\w+ more(?=[.,;:)])": "one more …",
    r"speaks to": "controls, connects to",
    r"has got": "has",
    r"all at a time": "all at once",
    r"sees? to it": "ensures",
    r"(the same|similar) like": "the same as, similar to",
    r"in dependence (of|on)": "depending on",
    r"depend(s|ed|ing)? (from|of)": "depend on",
    r"consists? from": "consists of",
    # Verbs that need an object before an infinitive.
    rf"(allow|avoid|enable|forbid|permit|prevent)s? to (?!{_RECEIVER})\w+": "…ing, or an object before `to`",
    # Nouns without a plural.
    r"(advice|equipment|evidence|feedback|hardware|information|software)s": "no plural",
    r"metadata (are|have|were)": "metadata is, has",
    # Archaic words.
    r"hither|thence|thereof|therein|thither|whence|whereupon|wherein": "from there, in it",
    r"for ever": "forever",
    r"in vain": "without success",
    r"wish(es)?": "request, requirement",
    r"rubbish": "unwanted files",
    r"besides that": "name what is meant",
    r"by that very": "by the same",
    r"(?-i:[Ll]icence[ds]?)": "license",
    r"(un|mis)?behaviours?": "behavior",
    r"colou?rs?(?<!colors)(?<!color)": "color",
    r"neighbour(s|ed|ing)?": "neighbor",
    r"favou?r(s|ite|able)?(?<!favor)(?<!favors)(?<!favorite)(?<!favorable)": "favor",
    r"honours?|honoured": "honor",
    r"centres?": "center",
    r"artefacts?": "artifact",
    rf"({_IZE})is(e|es|ed|ing)": "-ize",
    r"analys(e|es|ed|ing)(?<!analyses)": "analyze",
    r"catalogues?": "catalog",
    r"labell(ed|ing)|modell(ed|ing)|signall(ed|ing)|travell(ed|ing)|fulfils?|judgements?|skilful": "American spelling",
    r"amongst|learnt|spelt|till|towards|whilst": "among, learned, spelled, until, toward, while",
}
# Names that a variable must not have: they do not say what the value is.
VAGUE = {"facts", "found", "kept", "made", "place", "told", "wish"}
FORBIDDEN = [(re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE), term) for words, term in INSTEAD.items()]
# One search instead of one for each entry, as almost no line has a match.
_ANY = re.compile(rf"(?<![\w-])(?:{'|'.join(INSTEAD)})(?![\w-])", re.IGNORECASE)

_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|<!--.*?-->", re.DOTALL)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the prose of a file with line numbers."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".py":
        yield from _python(text)
    else:
        for pattern in (_FENCE, _SPAN) if path.suffix == ".md" else (_SPAN,):
            text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
        yield from enumerate(text.splitlines(), 1)


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Comments and strings: docstrings, messages and help texts alike."""
    for token in _comments(text):
        yield token.start[0], _SPAN.sub("", token.string)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(_SPAN.sub("", node.value).split("\n")):
                yield node.lineno + number, line


def _comments(text: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the comments; none if no line has a forbidden word after a `#`, as tokenizing is slow."""
    if any(
        _ANY.search(_SPAN.sub("", line[start.start() :]))
        for line in text.splitlines()
        for start in re.finditer("#", line)
    ):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token


def findings(path: Path) -> list[str]:
    """Return each forbidden word of a file with its line and the term to use instead."""
    return [
        f"{number}: {match[0]!r}: {term}"
        for number, line in lines(path)
        if _ANY.search(line)
        for pattern, term in FORBIDDEN
        if (match := pattern.search(line))
    ]
