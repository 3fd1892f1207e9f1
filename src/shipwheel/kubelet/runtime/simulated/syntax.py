"""The grammar of the simulated shell: what `sh -c` is given in examples and tests, as a tree.

Lists, pipelines, loops, conditions, groups, redirections, quotes and expansions are here; functions, `case`, here
documents, background jobs and patterns are not, and a script that has them is not understood (`Incomprehensible`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class Incomprehensible(ValueError):
    """The script is wrong, or beyond this grammar."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """`$NAME` or `${NAME:-default}`."""

    name: str
    quoted: bool
    default: Word | None = None


@dataclass(frozen=True, slots=True)
class Substitution:
    """`$(script)`"""

    script: Sequence
    quoted: bool


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`$((expression))`"""

    expression: str


Word = tuple[Text | Variable | Substitution | Arithmetic, ...]


@dataclass(frozen=True, slots=True)
class Redirect:
    descriptor: int
    operator: Literal["<", ">", ">>", ">&"]
    target: Word


@dataclass(frozen=True, slots=True)
class Simple:
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """`while` and `until`"""

    condition: Sequence
    body: Sequence
    until: bool
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class ForEach:
    name: str
    words: tuple[Word, ...]
    body: Sequence
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    branches: tuple[tuple[Sequence, Sequence], ...]
    otherwise: Sequence | None
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    body: Sequence
    subshell: bool
    redirects: tuple[Redirect, ...] = ()


Command = Simple | Loop | ForEach | Condition | Group


@dataclass(frozen=True, slots=True)
class Pipeline:
    commands: tuple[Command, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AndOr:
    """Pipelines with what decides whether each is run: `""` (the first), `&&` or `||`."""

    steps: tuple[tuple[Literal["", "&&", "||"], Pipeline], ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[AndOr, ...]


_OPERATORS = ("&&", "||", ">>", ">&", ";;", "<<", "<", ">", "|", ";", "&", "(", ")", "\n")
_RESERVED = {
    "if",
    "then",
    "elif",
    "else",
    "fi",
    "while",
    "until",
    "do",
    "done",
    "for",
    "in",
    "{",
    "}",
    "!",
    "case",
}
_ENDS = {"then", "elif", "else", "fi", "do", "done", "}"}


def parse(script: str) -> Sequence:
    """The tree of a script. Raises Incomprehensible."""
    parser = _Parser(script)
    tree = parser.sequence(frozenset())
    if parser.token is not None:
        raise Incomprehensible(f"syntax error: unexpected {parser.token!r}")
    return tree


@dataclass(frozen=True, slots=True)
class _Operator:
    text: str


_Token = _Operator | Word | None


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._descriptor: int | None = None
        self.token: _Token = None
        self._advance()

    # Commands

    def sequence(self, ends: frozenset[str]) -> Sequence:
        items: list[AndOr] = []
        while True:
            while self._is_operator(";", "\n"):
                self._advance()
            if self.token is None or self._is_operator(")") or self._keyword() in ends:
                return Sequence(tuple(items))
            items.append(self._and_or())
            if not (self.token is None or self._is_operator(";", "\n", ")") or self._keyword() in ends):
                raise Incomprehensible(f"syntax error: unexpected {self._shown()}")

    def _and_or(self) -> AndOr:
        steps: list[tuple[Literal["", "&&", "||"], Pipeline]] = [("", self._pipeline())]
        while self._is_operator("&&", "||"):
            assert isinstance(self.token, _Operator)
            operator: Literal["&&", "||"] = "&&" if self.token.text == "&&" else "||"
            self._advance()
            self._skip_newlines()
            steps.append((operator, self._pipeline()))
        return AndOr(tuple(steps))

    def _pipeline(self) -> Pipeline:
        negated = self._keyword() == "!"
        if negated:
            self._advance()
        commands = [self._command()]
        while self._is_operator("|"):
            self._advance()
            self._skip_newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    def _command(self) -> Command:
        keyword = self._keyword()
        if keyword in ("while", "until"):
            self._advance()
            condition = self.sequence(frozenset({"do"}))
            return Loop(condition, self._body(), keyword == "until", self._redirects())
        if keyword == "for":
            return self._for()
        if keyword == "if":
            return self._if()
        if keyword == "{":
            self._advance()
            body = self.sequence(frozenset({"}"}))
            self._expect("}")
            return Group(body, False, self._redirects())
        if self._is_operator("("):
            self._advance()
            body = self.sequence(frozenset())
            if not self._is_operator(")"):
                raise Incomprehensible('syntax error: expecting ")"')
            self._advance()
            return Group(body, True, self._redirects())
        if keyword in _RESERVED:
            raise Incomprehensible(f'syntax error: unexpected "{keyword}"')
        return self._simple()

    def _body(self) -> Sequence:
        self._expect("do")
        body = self.sequence(frozenset({"done"}))
        self._expect("done")
        return body

    def _for(self) -> ForEach:
        self._advance()
        name = self._plain()
        self._advance()
        words: list[Word] = []
        if self._keyword() == "in":
            self._advance()
            while isinstance(self.token, tuple):
                words.append(self.token)
                self._advance()
        while self._is_operator(";", "\n"):
            self._advance()
        return ForEach(name, tuple(words), self._body(), self._redirects())

    def _if(self) -> Condition:
        branches: list[tuple[Sequence, Sequence]] = []
        otherwise = None
        while self._keyword() in ("if", "elif"):
            self._advance()
            condition = self.sequence(frozenset({"then"}))
            self._expect("then")
            branches.append((condition, self.sequence(frozenset({"elif", "else", "fi"}))))
        if self._keyword() == "else":
            self._advance()
            otherwise = self.sequence(frozenset({"fi"}))
        self._expect("fi")
        return Condition(tuple(branches), otherwise, self._redirects())

    def _simple(self) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            redirects += self._redirects()
            if not isinstance(self.token, tuple):
                break
            word = self.token
            name = _assigned(word)
            if name and not words:
                first = word[0]
                assert isinstance(first, Text)
                assignments.append((name, (Text(first.text[len(name) + 1 :], False), *word[1:])))
            else:
                words.append(word)
            self._advance()
        if not (assignments or words or redirects):
            raise Incomprehensible(f"syntax error: unexpected {self._shown()}")
        return Simple(tuple(assignments), tuple(words), tuple(redirects))

    def _redirects(self) -> tuple[Redirect, ...]:
        found: list[Redirect] = []
        while self._is_operator("<", ">", ">>", ">&"):
            assert isinstance(self.token, _Operator)
            operator = self.token.text
            descriptor = self._descriptor if self._descriptor is not None else (0 if operator == "<" else 1)
            self._advance()
            if not isinstance(self.token, tuple):
                raise Incomprehensible("syntax error: a redirection without a target")
            found.append(Redirect(descriptor, operator, self.token))
            self._advance()
        return tuple(found)

    # Tokens

    def _shown(self) -> str:
        if self.token is None:
            return "end of file"
        return repr(self.token.text) if isinstance(self.token, _Operator) else "word"

    def _is_operator(self, *texts: str) -> bool:
        return isinstance(self.token, _Operator) and self.token.text in texts

    def _keyword(self) -> str:
        """The token, if it is a bare word that could be reserved."""
        if isinstance(self.token, tuple) and len(self.token) == 1:
            part = self.token[0]
            if isinstance(part, Text) and not part.quoted:
                return part.text
        return ""

    def _plain(self) -> str:
        word = self._keyword()
        if not word.isidentifier():
            raise Incomprehensible("syntax error: expecting a name")
        return word

    def _expect(self, keyword: str) -> None:
        if self._keyword() != keyword:
            raise Incomprehensible(f'syntax error: {self._shown()} unexpected (expecting "{keyword}")')
        self._advance()

    def _skip_newlines(self) -> None:
        while self._is_operator("\n"):
            self._advance()

    def _advance(self) -> None:
        text = self._text
        self._descriptor = None
        while self._at < len(text):
            if text[self._at] in " \t":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                break
        if self._at >= len(text):
            self.token = None
            return
        if text[self._at].isdigit() and text[self._at + 1 : self._at + 2] in ("<", ">") and text[self._at + 1 :]:
            self._descriptor = int(text[self._at])
            self._at += 1
        for operator in _OPERATORS:
            if text.startswith(operator, self._at):
                if operator in ("<<", ";;", "&"):
                    raise Incomprehensible(f"not understood: {operator}")
                self._at += len(operator)
                self.token = _Operator(operator)
                return
        self.token = self._word()

    def _word(self) -> Word:
        text = self._text
        parts: list[Text | Variable | Substitution | Arithmetic] = []
        while self._at < len(text) and text[self._at] not in " \t\n|&;<>()":
            char = text[self._at]
            if char == "'":
                end = text.find("'", self._at + 1)
                if end < 0:
                    raise Incomprehensible("syntax error: unterminated quoted string")
                parts.append(Text(text[self._at + 1 : end], True))
                self._at = end + 1
            elif char == '"':
                self._at += 1
                parts += self._double_quoted()
            elif char == "\\":
                parts.append(Text(text[self._at + 1 : self._at + 2], True))
                self._at += 2
            elif char in "$`":
                parts.append(self._expansion(quoted=False))
            else:
                start = self._at
                while self._at < len(text) and text[self._at] not in " \t\n|&;<>()'\"\\$`":
                    self._at += 1
                parts.append(Text(text[start : self._at], False))
        return tuple(parts)

    def _double_quoted(self) -> list[Text | Variable | Substitution | Arithmetic]:
        text = self._text
        parts: list[Text | Variable | Substitution | Arithmetic] = []
        plain = ""
        while self._at < len(text) and text[self._at] != '"':
            char = text[self._at]
            if char == "\\" and text[self._at + 1 : self._at + 2] in ('"', "\\", "$", "`", "\n"):
                plain += "" if text[self._at + 1] == "\n" else text[self._at + 1]
                self._at += 2
            elif char in "$`":
                parts.append(Text(plain, True))
                plain = ""
                parts.append(self._expansion(quoted=True))
            else:
                plain += char
                self._at += 1
        if self._at >= len(text):
            raise Incomprehensible("syntax error: unterminated quoted string")
        self._at += 1
        return [*parts, Text(plain, True)]

    def _expansion(self, *, quoted: bool) -> Text | Variable | Substitution | Arithmetic:
        text, at = self._text, self._at
        if text[at] == "`":
            end = text.find("`", at + 1)
            if end < 0:
                raise Incomprehensible("syntax error: unterminated `")
            self._at = end + 1
            return Substitution(parse(text[at + 1 : end]), quoted)
        if text.startswith("$((", at):
            end = _closing(text, at + 3)
            if not text.startswith("))", end):
                raise Incomprehensible("syntax error: unterminated $((")
            self._at = end + 2
            return Arithmetic(text[at + 3 : end])
        if text.startswith("$(", at):
            inner = _Parser.__new__(_Parser)
            inner._text, inner._at, inner._descriptor, inner.token = text, at + 2, None, None
            inner._advance()
            script = inner.sequence(frozenset())
            if not inner._is_operator(")"):
                raise Incomprehensible("syntax error: unterminated $(")
            self._at = inner._at
            return Substitution(script, quoted)
        if text.startswith("${", at):
            return self._braced(quoted)
        end = at + 1
        if text[end : end + 1] and text[end] in "?$#@*!0123456789":
            self._at = end + 1
            return Variable(text[end], quoted)
        while end < len(text) and (text[end].isalnum() or text[end] == "_"):
            end += 1
        self._at = end
        return Variable(text[at + 1 : end], quoted) if end > at + 1 else Text("$", quoted)

    def _braced(self, quoted: bool) -> Variable:
        end = self._text.find("}", self._at)
        if end < 0:
            raise Incomprehensible("syntax error: unterminated ${")
        inner = self._text[self._at + 2 : end]
        self._at = end + 1
        name = inner
        default: Word | None = None
        for separator in (":-", "-"):
            before, found, after = inner.partition(separator)
            if found:
                name, default = before, _Parser(f'"{after}"').token or ()  # type: ignore[assignment]
                break
        if not (name.isidentifier() or name in "?$#@*0123456789"):
            raise Incomprehensible(f"not understood: ${{{inner}}}")
        return Variable(name, quoted, default)


def _closing(text: str, at: int) -> int:
    """Where the parenthesis is that closes one opened before `at`; the text's end when there is none."""
    depth = 0
    while at < len(text):
        if text[at] == ")":
            if not depth:
                return at
            depth -= 1
        elif text[at] == "(":
            depth += 1
        at += 1
    return at


def _assigned(word: Word) -> str:
    """The name that a word assigns to; empty when it does not."""
    first = word[0] if word else None
    if not isinstance(first, Text) or first.quoted:
        return ""
    name, equals, _ = first.text.partition("=")
    return name if equals and name.isidentifier() else ""
