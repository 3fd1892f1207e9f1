"""The programs that a simulated container has: those that examples, probes and tests call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from shipwheel.kubelet.runtime.simulated.world import (
    FOREVER,
    STEP,
    Output,
    Program,
    Sleep,
    World,
    complain,
)

_Known = Callable[[World, list[str], bytes], Program]


def _said(text: str | bytes) -> Output:
    return Output("stdout", text if isinstance(text, bytes) else text.encode())


def _echo(world: World, words: list[str], stdin: bytes) -> Program:
    rest, end, escapes = words[1:], "\n", False
    while rest and rest[0] in ("-n", "-e", "-ne", "-en"):
        option = rest.pop(0)
        end = "" if "n" in option else end
        escapes = escapes or "e" in option
    text = " ".join(rest)
    yield _said((_unescaped(text) if escapes else text) + end)
    return 0


def _printf(world: World, words: list[str], stdin: bytes) -> Program:
    form = _unescaped(words[1]) if len(words) > 1 else ""
    values = words[2:]
    while True:
        text, used = "", 0
        pieces = iter(form.split("%"))
        text += next(pieces)
        for piece in pieces:
            if piece == "":
                text += "%" + next(pieces, "")
                continue
            kind = next((i for i, char in enumerate(piece) if char in "sdiuxcf"), None)
            if kind is None:
                text += "%" + piece
                continue
            value = values[used] if used < len(values) else ""
            used += 1
            number = piece[kind] in "diux"
            try:
                text += f"%{piece[: kind + 1]}" % ((int(value or 0)) if number else value)
            except ValueError:
                text += value
            text += piece[kind + 1 :]
        yield _said(text)
        values = values[used:]
        if not values or not used:
            return 0


def _unescaped(text: str) -> str:
    for escape, char in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"), ("\\0", "\0"), ("\\\\", "\\")):
        text = text.replace(escape, char)
    return text


def _sleep(world: World, words: list[str], stdin: bytes) -> Program:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    total = 0.0
    for word in words[1:]:
        number, unit = (word[:-1], units[word[-1]]) if word[-1:] in units else (word, 1)
        try:
            total += float(number) * unit
        except ValueError:
            yield Output("stderr", f"sleep: invalid number '{word}'\n".encode())
            return 1
    yield Sleep(total)
    return 0


def _true(world: World, words: list[str], stdin: bytes) -> Program:
    return 0
    yield STEP


def _false(world: World, words: list[str], stdin: bytes) -> Program:
    return 1
    yield STEP


def _cat(world: World, words: list[str], stdin: bytes) -> Program:
    status = 0
    for name in words[1:] or ["-"]:
        try:
            yield _said(stdin if name == "-" else world.read(name))
        except OSError as error:
            yield complain("cat", f"can't open '{name}'", error)
            status = 1
    return status


def _env(world: World, words: list[str], stdin: bytes) -> Program:
    yield _said("".join(f"{name}={value}\n" for name, value in world.env.items()))
    return 0


def _printenv(world: World, words: list[str], stdin: bytes) -> Program:
    if len(words) == 1:
        return (yield from _env(world, words, stdin))
    missing = [name for name in words[1:] if name not in world.env]
    yield _said("".join(f"{world.env[name]}\n" for name in words[1:] if name in world.env))
    return 1 if missing else 0


def _hostname(world: World, words: list[str], stdin: bytes) -> Program:
    yield _said(f"{world.hostname}\n")
    return 0


def _date(world: World, words: list[str], stdin: bytes) -> Program:
    form = next((word[1:] for word in words[1:] if word.startswith("+")), "%a %b %e %H:%M:%S UTC %Y")
    now = world.now()
    yield _said(now.strftime(form.replace("%s", str(int(now.timestamp())))) + "\n")
    return 0


def _pwd(world: World, words: list[str], stdin: bytes) -> Program:
    yield _said(f"{world.working_dir}\n")
    return 0


def _id(world: World, words: list[str], stdin: bytes) -> Program:
    name = "root" if world.user == 0 else str(world.user)
    yield _said(f"{world.user}\n" if "-u" in words else f"uid={world.user}({name}) gid=0(root)\n")
    return 0


def _whoami(world: World, words: list[str], stdin: bytes) -> Program:
    yield _said("root\n" if world.user == 0 else f"{world.user}\n")
    return 0


def _uname(world: World, words: list[str], stdin: bytes) -> Program:
    yield _said(f"Linux {world.hostname} 6.1.0 simulated\n" if "-a" in words else "Linux\n")
    return 0


def _touch(world: World, words: list[str], stdin: bytes) -> Program:
    status = 0
    for name in words[1:]:
        try:
            world.write(name, b"", append=True)
        except OSError as error:
            yield complain("touch", name, error)
            status = 1
    return status


def _rm(world: World, words: list[str], stdin: bytes) -> Program:
    status = 0
    force = any(word.startswith("-") and "f" in word for word in words[1:])
    for name in words[1:]:
        if name.startswith("-"):
            continue
        try:
            world.remove(name)
        except OSError as error:
            if not force:
                yield complain("rm", f"can't remove '{name}'", error)
                status = 1
    return status


def _mkdir(world: World, words: list[str], stdin: bytes) -> Program:
    for name in words[1:]:
        if not name.startswith("-"):
            mounted = world._on_node(world.path(name))
            if mounted is not None:
                mounted[0].mkdir(parents=True, exist_ok=True)
            else:
                world.files[world.path(name) + "/."] = b""
    return 0
    yield STEP


def _ls(world: World, words: list[str], stdin: bytes) -> Program:
    status = 0
    for name in [word for word in words[1:] if not word.startswith("-")] or ["."]:
        try:
            names = [each for each in world.names(name) if each != "." and not each.startswith("..")]
            yield _said("".join(f"{each}\n" for each in names))
        except NotADirectoryError:
            yield _said(f"{name}\n")
        except OSError as error:
            if world.exists(name):
                yield _said(f"{name}\n")
                continue
            yield complain("ls", name, error)
            status = 1
    return status


def _test(world: World, words: list[str], stdin: bytes) -> Program:
    arguments = words[1:]
    if words[0] in ("[", "[["):
        if not arguments or arguments[-1] not in ("]", "]]"):
            yield Output("stderr", b"sh: missing ]\n")
            return 2
        arguments = arguments[:-1]
    return int(not _holds(world, arguments))


def _holds(world: World, arguments: list[str]) -> bool:
    for joint, rule in (("-o", any), ("-a", all)):
        if joint in arguments[1:-1]:
            parts = [list(group) for is_joint, group in itertools.groupby(arguments, joint.__eq__) if not is_joint]
            return rule(_holds(world, part) for part in parts)
    match arguments:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["!", *rest]:
            return not _holds(world, rest)
        case ["-z", text]:
            return not text
        case ["-n", text]:
            return bool(text)
        case ["-d", name]:
            return world.is_directory(name)
        case ["-f", name]:
            return world.exists(name) and not world.is_directory(name)
        case ["-s", name]:
            return world.exists(name) and not world.is_directory(name) and bool(world.read(name))
        case ["-e" | "-r" | "-w" | "-x", name]:
            return world.exists(name)
        case [one, "=" | "==", other]:
            return one == other
        case [one, "!=", other]:
            return one != other
        case [one, "-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge" as operator, other]:
            return _compare(one, operator, other)
    return False


def _compare(one: str, operator: str, other: str) -> bool:
    try:
        difference = int(one) - int(other)
    except ValueError:
        return False
    return {
        "-eq": difference == 0,
        "-ne": difference != 0,
        "-lt": difference < 0,
        "-le": difference <= 0,
        "-gt": difference > 0,
        "-ge": difference >= 0,
    }[operator]


def _seq(world: World, words: list[str], stdin: bytes) -> Program:
    try:
        numbers = [int(word) for word in words[1:]]
    except ValueError:
        return 1
    match numbers:
        case [last]:
            first, step = 1, 1
        case [first, last]:
            step = 1
        case [first, step, last]:
            pass
        case _:
            return 1
    end = last + (1 if step > 0 else -1)
    yield _said("".join(f"{number}\n" for number in range(first, end, step or 1)))
    return 0


def _input(world: World, names: list[str], stdin: bytes) -> bytes:
    """What filters read: the files they are given, or their input. Raises OSError."""
    return b"".join(world.read(name) for name in names) if names else stdin


def _tail(world: World, words: list[str], stdin: bytes) -> Program:
    count, follow, names, rest = 10, False, [], iter(words[1:])
    for word in rest:
        if word in ("-f", "-F"):
            follow = True
        elif word == "-n":
            count = int(next(rest, "10").lstrip("+-") or 10)
        elif word.startswith("-") and word[1:].isdigit():
            count = int(word[1:])
        elif not word.startswith("-"):
            names.append(word)
    try:
        lines = _input(world, names, stdin).splitlines(keepends=True)
    except OSError as error:
        yield complain(words[0], f"can't open '{names[0]}'", error)
        return 1
    yield _said(b"".join(lines[:count] if words[0].endswith("head") else lines[-count:] if count else []))
    if follow:
        yield FOREVER
    return 0


def _grep(world: World, words: list[str], stdin: bytes) -> Program:
    import re

    options = "".join(word[1:] for word in words[1:] if word.startswith("-"))
    plain = [word for word in words[1:] if not word.startswith("-")]
    if not plain:
        return 2
    try:
        data = _input(world, plain[1:], stdin)
        pattern = re.compile(plain[0], re.IGNORECASE if "i" in options else 0)
    except (OSError, re.error):
        return 2
    found = [
        line for line in data.decode(errors="replace").splitlines() if bool(pattern.search(line)) != ("v" in options)
    ]
    if "c" in options:
        yield _said(f"{len(found)}\n")
    elif "q" not in options:
        yield _said("".join(f"{line}\n" for line in found))
    return 0 if found else 1


def _wc(world: World, words: list[str], stdin: bytes) -> Program:
    data = _input(world, [word for word in words[1:] if not word.startswith("-")], stdin)
    counts = {"-l": data.count(b"\n"), "-w": len(data.split()), "-c": len(data)}
    yield _said(" ".join(str(counts[key]) for key in counts if key in words or len(words) == 1) + "\n")
    return 0


def _tar(world: World, words: list[str], stdin: bytes) -> Program:
    """As much as `kubectl cp` needs: `tar cf - PATH...` and `tar xf - -C DIRECTORY`."""
    import io
    import tarfile

    rest = iter(words[2:])
    options = words[1] if len(words) > 1 else ""
    names, place = [], "/"
    for word in rest:
        if word == "-C":
            place = next(rest, "/")
        elif not word.startswith("-"):
            names.append(word)
    try:
        if "x" in options:
            with tarfile.open(fileobj=io.BytesIO(stdin)) as archive:
                for member in archive.getmembers():
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is not None:
                        world.write(f"{place.rstrip('/')}/{member.name}", file.read())
            return 0
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, content in (each for name in names for each in _files_below(world, name)):
                member = tarfile.TarInfo(path.lstrip("/"))
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    except (OSError, tarfile.TarError) as error:
        yield complain("tar", names[0] if names else place, error)
        return 1
    yield _said(out.getvalue())
    return 0


def _files_below(world: World, name: str) -> Iterator[tuple[str, bytes]]:
    """A file, or everything in a directory. Raises OSError."""
    if not world.is_directory(name):
        yield name, world.read(name)
        return
    for each in world.names(name):
        if each not in (".", "..") and not each.startswith("..2"):
            yield from _files_below(world, f"{name.rstrip('/')}/{each}")


def _pause(world: World, words: list[str], stdin: bytes) -> Program:
    yield FOREVER
    return 0


_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "TERM": 15}


def _kill(world: World, words: list[str], stdin: bytes) -> Program:
    """The only process there is to signal is the first, by its number or any name."""
    signal = 15
    for word in words[1:]:
        if word.startswith("-"):
            name = word.lstrip("-").removeprefix("SIG")
            signal = int(name) if name.isdigit() else _SIGNALS.get(name, 15)
        elif words[0] in ("pkill", "killall") or word == "1":
            world.kill(signal)
        else:
            yield Output("stderr", f"kill: can't kill pid {word}: No such process\n".encode())
            return 1
    return 0


PROGRAMS: dict[str, _Known] = {
    "echo": _echo,
    "printf": _printf,
    "sleep": _sleep,
    "true": _true,
    ":": _true,
    "sync": _true,
    "chmod": _true,
    "chown": _true,
    "false": _false,
    "cat": _cat,
    "env": _env,
    "printenv": _printenv,
    "hostname": _hostname,
    "date": _date,
    "pwd": _pwd,
    "id": _id,
    "whoami": _whoami,
    "uname": _uname,
    "touch": _touch,
    "rm": _rm,
    "mkdir": _mkdir,
    "ls": _ls,
    "test": _test,
    "[": _test,
    "[[": _test,
    "seq": _seq,
    "tail": _tail,
    "head": _tail,
    "grep": _grep,
    "wc": _wc,
    "tar": _tar,
    "pause": _pause,
    "kill": _kill,
    "pkill": _kill,
    "killall": _kill,
}
