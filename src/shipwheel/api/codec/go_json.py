"""What Go's JSON scanner says of a text that is no JSON. Only asked after a text was refused."""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER_PARTS = (
    ("looking for beginning of value", re.compile(r"-?")),
    ("in numeric literal", re.compile(r"0|[1-9][0-9]*")),
)
_FRACTION = re.compile(r"[0-9]+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPES = 'bfnrt\\/"'
_HEX = "0123456789abcdefABCDEF"
MAX_DEPTH = 10000

ENDED = "unexpected end of JSON input"


class _Complaint(Exception):
    pass


def complaint(text: str) -> str | None:
    """The message, or None when Go would have taken the text."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except _Complaint as found:
        return str(found)
    return None


def _quote(character: str) -> str:
    if character == "'":
        return "'\\''"
    if character == '"':
        return "'\"'"
    raw = character.encode()[0]
    if raw >= 0x80:  # Go's scanner looks at bytes, and shows each as the character of that number
        return f"'{chr(raw)}'" if chr(raw).isprintable() else f"'\\u{raw:04x}'"
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\a": "\\a"}
    if character in named:
        return f"'{named[character]}'"
    return f"'{character}'" if character.isprintable() else f"'\\x{raw:02x}'"


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, where: str) -> _Complaint:
        if self.at >= len(self.text):
            return _Complaint(ENDED)
        return _Complaint(f"invalid character {_quote(self.text[self.at])} {where}")

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def next(self) -> str:
        """The next character, or an empty text at the end."""
        return self.text[self.at : self.at + 1]

    def document(self) -> None:
        self.value_and_all_below()
        self.skip(_SPACE)
        if self.at < len(self.text):
            raise self.fail("after top-level value")

    def value_and_all_below(self) -> None:
        """One value, without recursion: texts can be nested deeper than our stack."""
        open_: list[str] = []
        while True:
            self.skip(_SPACE)
            start = self.next()
            if start and start in "[{":
                open_.append(start)
                if len(open_) > MAX_DEPTH:
                    raise self.fail("exceeded max depth")
                self.at += 1
                self.skip(_SPACE)
                if self.next() == ("]" if start == "[" else "}"):
                    self.at += 1
                    open_.pop()
                elif start == "{":
                    self.key()
                    continue
                else:
                    continue
            else:
                self.scalar()
            while open_:
                self.skip(_SPACE)
                inside, after = open_[-1], self.next()
                if after == ",":
                    self.at += 1
                    if inside == "{":
                        self.skip(_SPACE)
                        self.key()
                    break
                if after != ("]" if inside == "[" else "}"):
                    raise self.fail("after array element" if inside == "[" else "after object key:value pair")
                self.at += 1
                open_.pop()
            else:
                return

    def key(self) -> None:
        if self.next() != '"':
            raise self.fail("looking for beginning of object key string")
        self.string()
        self.skip(_SPACE)
        if self.next() != ":":
            raise self.fail("after object key")
        self.at += 1

    def scalar(self) -> None:
        start = self.next()
        if start == '"':
            self.string()
        elif start == "-" or start.isdigit():
            self.number()
        elif start and start in "tfn":
            self.literal({"t": "true", "f": "false", "n": "null"}[start])
        else:
            raise self.fail("looking for beginning of value")

    def literal(self, word: str) -> None:
        for expected in word:
            if self.next() != expected:
                raise self.fail(f"in literal {word} (expecting '{expected}')")
            self.at += 1

    def number(self) -> None:
        for where, pattern in _NUMBER_PARTS:
            match = pattern.match(self.text, self.at)
            if match is None:
                raise self.fail(where)
            self.at = match.end()
        if self.next() == ".":
            self.at += 1
            if not _FRACTION.match(self.text, self.at):
                raise self.fail("after decimal point in numeric literal")
            self.skip(_FRACTION)
        if self.next() in ("e", "E"):
            self.at += 1
            if self.next() in ("+", "-"):
                self.at += 1
            if not _FRACTION.match(self.text, self.at):
                raise self.fail("in exponent of numeric literal")
            self.skip(_FRACTION)

    def string(self) -> None:
        self.at += 1
        while True:
            self.skip(_PLAIN)
            character = self.next()
            if character == '"':
                self.at += 1
                return
            if character != "\\":
                raise self.fail("in string literal")
            self.at += 1
            escape = self.next()
            if escape == "u":
                self.at += 1
                for _ in range(4):
                    if not self.next() or self.next() not in _HEX:
                        raise self.fail("in \\u hexadecimal character escape")
                    self.at += 1
            elif escape and escape in _ESCAPES:
                self.at += 1
            else:
                raise self.fail("in string escape code")
