"""A small shell, for the scripts of simulated containers.

Programs that only a real container has are not known here; what becomes of them is the caller's choice.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace

from shipwheel.kubelet.runtime.simulated import syntax
from shipwheel.kubelet.runtime.simulated.programs import PROGRAMS
from shipwheel.kubelet.runtime.simulated.syntax import Incomprehensible
from shipwheel.kubelet.runtime.simulated.world import (
    STEP,
    Event,
    Output,
    Program,
    Unknown,
    World,
    complain,
    not_found,
)


class Exit(Exception):
    """The shell's own end."""

    def __init__(self, code: int) -> None:
        self.code = code


class Break(Exception):
    pass


class Continue(Exception):
    pass


SHELLS = tuple(f"{place}{name}" for place in ("", "/bin/", "/usr/bin/") for name in ("sh", "bash", "ash", "dash"))


def program(
    command: Sequence[str], world: World, *, stdin: bytes = b"", unknown: Unknown = not_found
) -> Program | None:
    """The program that a command line starts; None when it is not known here. `unknown` stands for programs that
    a script calls and that are not known."""
    if command[0] in SHELLS:
        return _shell_program(command, world, stdin, unknown)
    known = PROGRAMS.get(posixpath.basename(command[0]))
    return known(world, list(command), stdin) if known else None


def _shell_program(command: Sequence[str], world: World, stdin: bytes, unknown: Unknown) -> Program | None:
    arguments = list(command[1:])
    options = ""
    while arguments and arguments[0].startswith("-") and len(arguments[0]) > 1:
        option = arguments.pop(0)
        if option.startswith("--"):
            continue
        options += option[1:]
        if "o" in option and arguments:
            arguments.pop(0)
        if "c" in option:
            break
    if "c" in options:
        if not arguments:
            return None
        text, rest = arguments[0], arguments[1:]
    elif arguments:
        try:
            text, rest = world.read(arguments[0]).decode(errors="replace"), arguments
        except OSError:
            return None
    else:
        text, rest, stdin = stdin.decode(errors="replace"), [], b""
    try:
        script = syntax.parse(text)
    except Incomprehensible:
        return None
    shell = Shell(replace(world, env=dict(world.env)), unknown, arguments=rest, exit_on_error="e" in options)
    return shell.main(script, stdin)


class Shell:
    """One shell process: variables, its place, and the last exit code."""

    def __init__(
        self, world: World, unknown: Unknown, *, arguments: Sequence[str] = (), exit_on_error: bool = False
    ) -> None:
        self.world = world
        self.status = 0
        self._unknown = unknown
        self._arguments = list(arguments)
        self._exit_on_error = exit_on_error

    def main(self, script: syntax.Sequence, stdin: bytes = b"") -> Program:
        """Run a script as a process of its own: whatever ends it, this ends with an exit code."""
        try:
            yield from self.run(script, stdin)
        except Exit as end:
            return end.code
        except (Break, Continue):
            return 0
        return self.status

    def run(self, script: syntax.Sequence, stdin: bytes) -> Program:
        for item in script.items:
            yield from self._and_or(item, stdin)
        return self.status

    def _and_or(self, item: syntax.AndOr, stdin: bytes) -> Program:
        for number, (operator, pipeline) in enumerate(item.steps):
            if (operator == "&&" and self.status) or (operator == "||" and not self.status):
                continue
            self.status = yield from self._pipeline(pipeline, stdin)
            last = number == len(item.steps) - 1
            if self._exit_on_error and self.status and last and not pipeline.negated:
                raise Exit(self.status)
        return self.status

    def _pipeline(self, pipeline: syntax.Pipeline, stdin: bytes) -> Program:
        *before, last = pipeline.commands
        data = stdin
        for command in before:
            data, _ = yield from _captured(self._child()._command(command, data))
        shell = self._child() if before else self
        status = yield from shell._command(last, data)
        return int(not status) if pipeline.negated else status

    def _child(self) -> Shell:
        world = replace(self.world, env=dict(self.world.env))
        child = Shell(world, self._unknown, arguments=self._arguments, exit_on_error=self._exit_on_error)
        child.status = self.status
        return child

    def _command(self, command: syntax.Command, stdin: bytes) -> Program:
        if isinstance(command, syntax.Simple):
            return (yield from self._simple(command, stdin))
        return (yield from self._redirected(command.redirects, stdin, lambda data: self._compound(command, data)))

    def _compound(self, command: syntax.Command, stdin: bytes) -> Program:
        match command:
            case syntax.Group(body, subshell):
                shell = self._child() if subshell else self
                if subshell:
                    return (yield from shell.main(body))
                return (yield from shell.run(body, stdin))
            case syntax.Condition(branches, otherwise):
                for condition, body in branches:
                    if not (yield from self._quietly(condition, stdin)):
                        return (yield from self.run(body, stdin))
                if otherwise is not None:
                    return (yield from self.run(otherwise, stdin))
                return 0
            case syntax.Loop(condition, body, until):
                status = 0
                while bool((yield from self._quietly(condition, stdin))) == until:
                    yield STEP
                    try:
                        status = yield from self.run(body, stdin)
                    except Break:
                        break
                    except Continue:
                        continue
                return status
            case syntax.ForEach(name, words, body):
                status = 0
                for value in (yield from self._expand_all(words)):
                    self.world.env[name] = value
                    yield STEP
                    try:
                        status = yield from self.run(body, stdin)
                    except Break:
                        break
                    except Continue:
                        continue
                return status
        raise AssertionError(command)

    def _quietly(self, condition: syntax.Sequence, stdin: bytes) -> Program:
        """A condition: its failure does not end a shell that ends with errors."""
        kept, self._exit_on_error = self._exit_on_error, False
        try:
            return (yield from self.run(condition, stdin))
        finally:
            self._exit_on_error = kept

    def _simple(self, command: syntax.Simple, stdin: bytes) -> Program:
        words = yield from self._expand_all(command.words)
        values = {}
        for name, word in command.assignments:
            values[name] = yield from self._expand_one(word)
        if not words:
            self.world.env |= values
            return (yield from self._redirected(command.redirects, stdin, lambda data: _nothing()))
        if words[0] == "exec" and len(words) > 1:
            status = yield from self._redirected(
                command.redirects, stdin, lambda data: self._start(words[1:], values, data)
            )
            raise Exit(status)
        return (yield from self._redirected(command.redirects, stdin, lambda data: self._start(words, values, data)))

    def _start(self, words: list[str], values: Mapping[str, str], stdin: bytes) -> Program:
        builtin = _BUILTINS.get(words[0])
        if builtin is not None:
            return (yield from builtin(self, words, stdin))
        world = replace(self.world, env=self.world.env | dict(values)) if values else self.world
        known = PROGRAMS.get(posixpath.basename(words[0]))
        if known is not None:
            return (yield from known(world, words, stdin))
        if words[0] in SHELLS:
            inner = _shell_program(words, world, stdin, self._unknown)
            if inner is not None:
                return (yield from inner)
        return (yield from self._unknown(words))

    def _redirected(
        self, redirects: Sequence[syntax.Redirect], stdin: bytes, run: Callable[[bytes], Program]
    ) -> Program:
        """Run with files, or another stream, in the place of the standard streams."""
        places: dict[int, str | int] = {}
        for redirect in redirects:
            target = yield from self._expand_one(redirect.target)
            try:
                if redirect.operator == "<":
                    stdin = self.world.read(target)
                elif redirect.operator == ">&":
                    places[redirect.descriptor] = places.get(int(target), int(target))
                else:
                    if redirect.operator == ">":
                        self.world.write(target, b"")
                    places[redirect.descriptor] = target
            except (OSError, ValueError) as error:
                yield complain("sh", f"can't open {target}", error)
                return 1
        running = run(stdin)
        while True:
            try:
                event = next(running)
            except StopIteration as end:
                return end.value
            if not isinstance(event, Output) or not places:
                yield event
                continue
            number = 1 if event.stream == "stdout" else 2
            place = places.get(number, number)
            if isinstance(place, str):
                try:
                    self.world.write(place, event.data, append=True)
                except OSError as error:
                    yield complain("sh", f"write error: {place}", error)
                    return 1
            else:
                yield Output("stdout" if place == 1 else "stderr", event.data)

    # Words

    def _expand_all(self, words: Sequence[syntax.Word]) -> Generator[Event, None, list[str]]:
        found: list[str] = []
        for word in words:
            found += yield from self._fields(word)
        return found

    def _expand_one(self, word: syntax.Word) -> Generator[Event, None, str]:
        text = ""
        for part in word:
            text += yield from self._part(part)
        return text

    def _fields(self, word: syntax.Word) -> Generator[Event, None, list[str]]:
        """A word's fields: what is not quoted is split where it has white space."""
        fields: list[str] = []
        current: str | None = None
        for part in word:
            text = yield from self._part(part)
            literal = isinstance(part, syntax.Text | syntax.Arithmetic) or part.quoted
            if literal:
                current = (current or "") + text
                continue
            pieces = text.split()
            if not pieces:
                continue
            if text[:1].isspace() and current is not None:
                fields.append(current)
                current = None
            for number, piece in enumerate(pieces):
                if number and current is not None:
                    fields.append(current)
                    current = None
                current = (current or "") + piece
            if text[-1:].isspace() and current is not None:
                fields.append(current)
                current = None
        return fields if current is None else [*fields, current]

    def _part(
        self, part: syntax.Text | syntax.Variable | syntax.Substitution | syntax.Arithmetic
    ) -> Generator[Event, None, str]:
        match part:
            case syntax.Text(text):
                return text
            case syntax.Variable(name, _, default):
                value = self._variable(name)
                return (yield from self._expand_one(default)) if not value and default is not None else value
            case syntax.Substitution(script):
                output, self.status = yield from _captured(self._child().main(script))
                return output.decode(errors="replace").rstrip("\n")
            case syntax.Arithmetic(expression):
                return str(_arithmetic(expression, self._variable))
        raise AssertionError(part)

    def _variable(self, name: str) -> str:
        match name:
            case "?":
                return str(self.status)
            case "$":
                return "1"
            case "#":
                return str(max(len(self._arguments) - 1, 0))
            case "@" | "*":
                return " ".join(self._arguments[1:])
        if name.isdigit():
            index = int(name)
            return self._arguments[index] if index < len(self._arguments) else ("sh" if index == 0 else "")
        return self.world.env.get(name, "")


def _captured(running: Program) -> Generator[Event, None, tuple[bytes, int]]:
    """Run and keep what is written to standard output: (output, exit code)."""
    output = bytearray()
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            return bytes(output), end.value
        except Exit as end:
            return bytes(output), end.code
        if isinstance(event, Output) and event.stream == "stdout":
            output += event.data
        else:
            yield event


def _nothing() -> Program:
    return 0
    yield STEP


def _arithmetic(expression: str, variable: Callable[[str], str]) -> int:
    """Integers, names, `+ - * / %`, comparisons and parentheses. Anything else is 0."""
    import ast
    import operator

    operators: dict[type, Callable[[int, int], int]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
    }

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(int(number)):
                return number
            case ast.Name(name):
                text = variable(name)
                return int(text) if text.lstrip("-").isdigit() else 0
            case ast.BinOp(left, kind, right) if type(kind) in operators:
                return operators[type(kind)](value(left), value(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -value(operand)
        return 0

    text = expression.replace("$", "").replace("/", "//").strip()
    try:
        return value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError):
        return 0


# --- What the shell itself does


def _cd(shell: Shell, words: list[str], stdin: bytes) -> Program:
    target = words[1] if len(words) > 1 else shell.world.env.get("HOME", "/")
    if not shell.world.is_directory(target):
        yield Output("stderr", f"sh: cd: can't cd to {target}: No such file or directory\n".encode())
        return 1
    shell.world.working_dir = shell.world.path(target)
    return 0


def _exit(shell: Shell, words: list[str], stdin: bytes) -> Program:
    raise Exit(int(words[1]) & 0xFF if len(words) > 1 and words[1].isdigit() else shell.status)
    yield STEP


def _export(shell: Shell, words: list[str], stdin: bytes) -> Program:
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals:
            shell.world.env[name] = value
    return 0
    yield STEP


def _unset(shell: Shell, words: list[str], stdin: bytes) -> Program:
    for word in words[1:]:
        shell.world.env.pop(word, None)
    return 0
    yield STEP


def _set(shell: Shell, words: list[str], stdin: bytes) -> Program:
    for word in words[1:]:
        if word[:1] in "+-" and "e" in word:
            shell._exit_on_error = word[0] == "-"
    return 0
    yield STEP


def _break(shell: Shell, words: list[str], stdin: bytes) -> Program:
    raise Break
    yield STEP


def _continue(shell: Shell, words: list[str], stdin: bytes) -> Program:
    raise Continue
    yield STEP


def _trap(shell: Shell, words: list[str], stdin: bytes) -> Program:
    """Signals end a simulated container whatever it wants; see `stop` in its declaration."""
    return 0
    yield STEP


_BUILTINS: dict[str, Callable[[Shell, list[str], bytes], Program]] = {
    "cd": _cd,
    "exit": _exit,
    "export": _export,
    "unset": _unset,
    "set": _set,
    "break": _break,
    "continue": _continue,
    "trap": _trap,
    "umask": _trap,
}
