"""`python clients/js/minify.py < gopush.js`: without comments, and without blanks that no token needs."""

from __future__ import annotations

import re
import sys

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`)
    |(?P<regex>(?:(?<=[=(,])|(?<=[=(,]\s))/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[\n])+/[a-z]*)
    |(?P<word>[\w$]+)
    |(?P<blank>\s+)
    |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)


def minify(source: str) -> str:
    """The same program: no statement ends with its line alone. No name changes."""
    out = ""
    blank = False
    for token in TOKEN.finditer(source):
        kind, text = token.lastgroup, token[0]
        if kind in ("comment", "blank"):
            blank = True
            continue
        if blank and out and re.match(r"[\w$]", out[-1]) and re.match(r"[\w$]", text):
            out += " "
        if text == "}" and out.endswith((";", ",")):
            out = out[:-1]
        out += text
        blank = False
    return out


if __name__ == "__main__":
    sys.stdout.write(minify(sys.stdin.read()))
