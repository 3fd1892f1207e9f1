"""Label and field selectors: read from text or from objects, compiled to a test, written canonically.

Selectors are values: immutable, hashable, equal when they say the same in the same words. What they match is
compiled once, because a watch asks for every event and a list for every object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from shipwheel.api.errors import FieldError, invalid, not_supported
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_qualified_name, is_valid_label_value

Labels = Mapping[str, str]

_BINARY = ("in", "notin", "=", "==", "!=", "gt", "lt")
_OPERATORS = (*_BINARY, "exists", "!")
_SYMBOL = {"gt": ">", "lt": "<"}
_FROM_SYMBOL = {"in": "in", "notin": "notin", "=": "=", "==": "==", "!=": "!=", ">": "gt", "<": "lt"}
_FROM_SELECTOR = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_INTEGER = re.compile("[+-]?[0-9]+").fullmatch


class SelectorError(ValueError):
    """The selector cannot be read; the message is upstream's."""


class Requirement(NamedTuple):
    """One condition on one label. `operator` is one of `in notin = == != gt lt exists !`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case operator:
                return f"{self.key}{_SYMBOL.get(operator, operator)}{values}"


def new_requirement(key: str, operator: str, values: Iterable[str], path: str = "") -> Requirement:
    """A requirement that is known to be good. Raises SelectorError with every fault."""
    values = tuple(values)
    prefix = f"{path}." if path else ""
    errors = _key_errors(key, f"{prefix}key")
    here = f"{prefix}values"
    shown = list(values)
    match operator:
        case "in" | "notin":
            if not values:
                errors.append(invalid(here, shown, "for 'in', 'notin' operators, values set can't be empty"))
        case "=" | "==" | "!=":
            if len(values) != 1:
                errors.append(invalid(here, shown, "exact-match compatibility requires one single value"))
        case "exists" | "!":
            if values:
                errors.append(invalid(here, shown, "values set must be empty for exists and does not exist"))
        case "gt" | "lt":
            if len(values) != 1:
                errors.append(invalid(here, shown, "for 'Gt', 'Lt' operators, exactly one value is required"))
            for index, value in enumerate(values):
                if _to_integer(value) is None:
                    detail = "for 'Gt', 'Lt' operators, the value must be an integer"
                    errors.append(invalid(f"{here}[{index}]", value, detail))
        case _:
            errors.append(not_supported(f"{prefix}operator", operator, _OPERATORS))
    for index, value in enumerate(values):
        if complaints := is_valid_label_value(value):
            errors.append(invalid(f"{here}[{index}][{key}]", value, "; ".join(complaints)))
    if errors:
        texts = list(dict.fromkeys(map(str, errors)))
        raise SelectorError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    return Requirement(key, operator, values)


def _key_errors(key: str, path: str) -> list[FieldError]:
    complaints = is_qualified_name(key)
    return [invalid(path, key, "; ".join(complaints))] if complaints else []


def _to_integer(text: str) -> int | None:
    if not _INTEGER(text) or len(text) > 20:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


class LabelSelector:
    """A conjunction of requirements, in order of their keys.

    `matches(labels)` is the compiled test. `EVERYTHING` has no requirements; `NOTHING` matches no object.
    """

    __slots__ = ("_nothing", "matches", "requirements")

    requirements: tuple[Requirement, ...]
    matches: Callable[[Labels], bool]

    def __init__(self, requirements: Iterable[Requirement] = (), *, nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda each: each.key))
        self._nothing = nothing
        self.matches = (lambda labels: False) if nothing else _compile(self.requirements)

    @property
    def is_everything(self) -> bool:
        return not self.requirements and not self._nothing

    @property
    def is_nothing(self) -> bool:
        return self._nothing

    def requires(self, key: str) -> str | None:
        """The one value that the label must have, if the selector says so."""
        for requirement in self.requirements:
            if requirement.key == key:
                exact = requirement.operator in ("=", "==", "in") and len(requirement.values) == 1
                return requirement.values[0] if exact else None
        return None

    def __and__(self, other: LabelSelector) -> LabelSelector:
        return LabelSelector(self.requirements + other.requirements, nothing=self._nothing or other._nothing)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return "LabelSelector.NOTHING" if self._nothing else f"LabelSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LabelSelector)
            and self.requirements == other.requirements
            and self._nothing == other._nothing
        )

    def __hash__(self) -> int:
        return hash((self.requirements, self._nothing))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.requirements, self._nothing)


def _rebuild(requirements: tuple[Requirement, ...], nothing: bool) -> LabelSelector:
    return LabelSelector(requirements, nothing=nothing)


def _compile(requirements: tuple[Requirement, ...]) -> Callable[[Labels], bool]:
    if not requirements:
        return lambda labels: True
    if all(each.operator in ("=", "==") for each in requirements):
        pairs = tuple((each.key, each.values[0]) for each in requirements)
        if len(pairs) == 1:
            ((only, wanted),) = pairs
            return lambda labels: labels.get(only) == wanted

        def all_equal(labels: Labels) -> bool:
            get = labels.get
            for key, value in pairs:  # noqa: SIM110 (a generator takes three times as long)
                if get(key) != value:
                    return False
            return True

        return all_equal
    tests = tuple(map(_test, requirements))
    if len(tests) == 1:
        return tests[0]

    def all_hold(labels: Labels) -> bool:
        for test in tests:  # noqa: SIM110 (likewise)
            if not test(labels):
                return False
        return True

    return all_hold


def _test(requirement: Requirement) -> Callable[[Labels], bool]:
    key = requirement.key
    values = frozenset(requirement.values)
    match requirement.operator:
        case "=" | "==" | "in":
            return lambda labels: labels.get(key) in values
        case "!=" | "notin":
            return lambda labels: labels.get(key) not in values
        case "exists":
            return lambda labels: key in labels
        case "!":
            return lambda labels: key not in labels
    bound = int(requirement.values[0])
    greater = requirement.operator == "gt"

    def compare(labels: Labels) -> bool:
        number = _to_integer(labels.get(key, ""))
        return number is not None and (number > bound if greater else number < bound)

    return compare


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def from_labels(labels: Labels) -> LabelSelector:
    """All of these labels, with these values; they are taken as good."""
    return LabelSelector(Requirement(key, "=", (value,)) for key, value in labels.items())


def from_label_selector(selector: Obj | None) -> LabelSelector:
    """A `metav1.LabelSelector`. None selects nothing, an empty one everything; SelectorError when it is bad."""
    if selector is None:
        return NOTHING
    requirements = [new_requirement(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _FROM_SELECTOR.get(expression.get("operator", ""))
        if operator is None:
            shown = expression.get("operator", "")
            raise SelectorError(f'"{shown}" is not a valid label selector operator')
        requirements.append(new_requirement(expression.get("key", ""), operator, expression.get("values") or ()))
    return LabelSelector(requirements) if requirements else EVERYTHING


@lru_cache(maxsize=512)
def parse_label_selector(text: str) -> LabelSelector:
    """Read `app=web,tier in (a,b),!canary`. Raises SelectorError with upstream's message."""
    requirements = _Parser(text).parse()
    return LabelSelector(requirements) if requirements else EVERYTHING


_END = ""
_SPECIAL = frozenset(("!=", "==", "=", "!", "(", ")", ",", "<", ">"))
_tokens = re.compile(r"!=|==|[=!(),<>]|[^=!(),<> \t\r\n]+").findall


class _Parser:
    """Recursive descent over the tokens. `in` and `notin` are words only where an operator may stand."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [*_tokens(text), _END]
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _next(self) -> str:
        self._position += 1
        return self._tokens[self._position - 1]

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while (token := self._peek()) != _END:
            if not (_is_word(token) or token == "!"):
                raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            match self._next():
                case "":
                    break
                case ",":
                    following = self._peek()
                    if not (_is_word(following) or following == "!"):
                        raise SelectorError(f"found '{following}', expected: identifier after ','")
                case token:
                    raise SelectorError(f"found '{token}', expected: ',' or 'end of string'")
        return requirements

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._next()
        if not _is_word(key):
            raise SelectorError(f"found '{key}', expected: identifier")
        if errors := _key_errors(key, "<nil>"):
            raise SelectorError(str(errors[0]))
        if absent:
            return new_requirement(key, "!", ())
        if self._peek() in (_END, ","):
            return new_requirement(key, "exists", ())
        symbol = self._next()
        operator = _FROM_SYMBOL.get(symbol)
        if operator is None:
            raise SelectorError(f"found '{symbol}', expected: {', '.join(_BINARY)}")
        values = self._values() if operator in ("in", "notin") else {self._exact_value()}
        return new_requirement(key, operator, sorted(values))

    def _exact_value(self) -> str:
        if self._peek() in (_END, ","):
            return ""
        token = self._next()
        if not _is_word(token):
            raise SelectorError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> set[str]:
        token = self._next()
        if token != "(":
            raise SelectorError(f"found '{token}' expected: '('")
        token = self._peek()
        if token == ")":
            self._next()
            return {""}
        if not (_is_word(token) or token == ","):
            raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
        values = self._value_list()
        self._next()
        return values

    def _value_list(self) -> set[str]:
        """Up to the closing parenthesis, which is left. Nothing between commas is an empty value."""
        values: set[str] = set()
        while True:
            token = self._next()
            following = self._peek() if token != _END else _END
            if _is_word(token):
                values.add(token)
                if following == ")":
                    return values
                if following != ",":
                    raise SelectorError(f"found '{following}', expected: ',' or ')'")
            elif token == ",":
                if not values or following in (")", ","):
                    values.add("")
                if following == ")":
                    return values
            else:
                raise SelectorError(f"found '{token}', expected: ',', or identifier")


def _is_word(token: str) -> bool:
    return token != _END and token not in _SPECIAL


class FieldTerm(NamedTuple):
    """One field's comparison; `operator` is `=` or `!=`."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{escape_value(self.value)}"


class FieldSelector:
    """A conjunction of comparisons of fields with texts. A field that an object lacks is the empty text."""

    __slots__ = ("terms",)

    terms: tuple[FieldTerm, ...]

    def __init__(self, terms: Iterable[FieldTerm] = ()) -> None:
        self.terms = tuple(terms)

    @property
    def is_everything(self) -> bool:
        return not self.terms

    def fields(self) -> frozenset[str]:
        """The names of the fields compared."""
        return frozenset(term.field for term in self.terms)

    def requires(self, field: str) -> str | None:
        """The one value that the field must have, if the selector says so."""
        for term in self.terms:
            if term.field == field and term.operator == "=":
                return term.value
        return None

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(each.field, "") == each.value) == (each.operator == "=") for each in self.terms)

    def bind(self, getters: Mapping[str, Callable[[Obj], str]]) -> Callable[[Obj], bool]:
        """The test of an object whose fields `getters` read; KeyError when one of them is missing."""
        tests = tuple((getters[term.field], term.value, term.operator == "=") for term in self.terms)
        if len(tests) == 1:
            ((get, wanted, equal),) = tests
            return (lambda obj: get(obj) == wanted) if equal else (lambda obj: get(obj) != wanted)
        return lambda obj: all((get(obj) == value) == equal for get, value, equal in tests)

    def transform(self, change: Callable[[str, str], tuple[str, str]]) -> FieldSelector:
        """Each field and value replaced; a term that becomes two empty texts is left out."""
        changed = ((*change(term.field, term.value), term.operator) for term in self.terms)
        return FieldSelector(FieldTerm(name, op, value) for name, value, op in changed if name or value)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))

    def __repr__(self) -> str:
        return f"FieldSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSelector) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)


EVERY_FIELD = FieldSelector()

_terms = re.compile(r"(?:\\.|[^\\,]|\\$)+", re.DOTALL).findall
_comparison = re.compile("(.*?)(!=|==|=)(.*)", re.DOTALL).fullmatch


@lru_cache(maxsize=512)
def parse_field_selector(text: str) -> FieldSelector:
    r"""Read `metadata.name=x,status.phase!=Running`; `\` escapes itself, `,` and `=` in values.

    Raises SelectorError with upstream's message.
    """
    terms = []
    for part in sorted(_terms(text)):
        compared = _comparison(part)
        if compared is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = compared.groups()
        terms.append(FieldTerm(field, "!=" if operator == "!=" else "=", unescape_value(value)))
    return FieldSelector(terms) if terms else EVERY_FIELD


def escape_value(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def unescape_value(text: str) -> str:
    if not re.search(r"[\\,=]", text):
        return text
    value = []
    letters = iter(text)
    for letter in letters:
        if letter in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(letter)}")
        if letter != "\\":
            value.append(letter)
            continue
        escaped = next(letters, "")
        if escaped not in ("\\", ",", "="):
            raise SelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
        value.append(escaped)
    return "".join(value)
