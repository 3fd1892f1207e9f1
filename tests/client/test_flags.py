"""Command lines are read as pflag reads them, with its complaints."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.client.flags import (
    Flag,
    FlagError,
    HelpRequested,
    Type,
    format_duration,
    parse,
    parse_duration,
    usage,
)

FLAGS = (
    Flag("kubeconfig", "string", "", "Path to a kubeconfig"),
    Flag("v", "int", 0, "verbosity", shorthand="v"),
    Flag("leader-elect", "bool", True, "Lead or follow", shorthand="l"),
    Flag("sync-period", "duration", 30.0, "How often"),
    Flag("controllers", "stringSlice", ("*",), "Which"),
    Flag("issuer", "stringArray", (), "Who"),
    Flag("feature-gates", "mapStringBool", {}, "Gates"),
    Flag("node-labels", "mapStringString", {}, "Labels"),
    Flag("bind-address", "ip", "0.0.0.0", "Where"),
    Flag("cluster-cidr", "cidr", "", "Range"),
    Flag("qps", "float", 5.0, "Rate"),
    Flag("old", "string", "", "Gone soon", deprecated="use --new"),
)


def value(name: str, *argv: str) -> Any:
    return parse(FLAGS, argv).values[name]


@pytest.mark.parametrize(
    ("name", "argv", "expected"),
    [
        ("kubeconfig", ["--kubeconfig=/a"], "/a"),
        ("kubeconfig", ["--kubeconfig", "/a"], "/a"),
        ("kubeconfig", ["--kubeconfig", "--v=3"], "--v=3"),
        ("kubeconfig", ["--kubeconfig=a=b"], "a=b"),
        ("v", ["-v", "4"], 4),
        ("v", ["-v4"], 4),
        ("v", ["-v=4"], 4),
        ("v", ["-lv4"], 4),
        ("leader-elect", [], True),
        ("leader-elect", ["--leader-elect"], True),
        ("leader-elect", ["--leader-elect=false"], False),
        ("leader-elect", ["--leader_elect=f"], False),
        ("sync-period", ["--sync-period=1m30s"], 90.0),
        ("controllers", [], ("*",)),
        ("controllers", ["--controllers=a,b", "--controllers", "c"], ("a", "b", "c")),
        ("issuer", ["--issuer=a,b", "--issuer=c"], ("a,b", "c")),
        ("feature-gates", ["--feature-gates=A=true,B=false"], {"A": True, "B": False}),
        ("node-labels", ["--node-labels=a=b", "--node-labels=c=d"], {"a": "b", "c": "d"}),
        ("bind-address", ["--bind-address=::1"], "::1"),
        ("cluster-cidr", ["--cluster-cidr=10.244.0.0/16"], "10.244.0.0/16"),
        ("qps", ["--qps=50"], 50.0),
    ],
)  # fmt: skip
def test_reading(name: str, argv: list[str], expected: Any) -> None:
    assert value(name, *argv) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=1"], "unknown flag: --foo"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["---a"], "bad flag syntax: ---a"),
        (["--kubeconfig"], "flag needs an argument: --kubeconfig"),
        (["-v"], "flag needs an argument: 'v' in -v"),
        (
            ["--leader-elect=maybe"],
            'invalid argument "maybe" for "-l, --leader-elect" flag: '
            'strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            ["-v", "x"],
            'invalid argument "x" for "-v, --v" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["--sync-period=5"],
            'invalid argument "5" for "--sync-period" flag: time: missing unit in duration "5"',
        ),
        (["--bind-address=x"], 'invalid argument "x" for "--bind-address" flag: failed to parse IP: "x"'),
        (
            ["--feature-gates=A"],
            'invalid argument "A" for "--feature-gates" flag: malformed pair, expect string=bool',
        ),
    ],
)
def test_complaints(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse(FLAGS, argv)
    assert str(caught.value) == message


def test_arguments_and_what_was_given() -> None:
    parsed = parse(FLAGS, ["a", "--v=1", "--", "--foo"])
    assert parsed.arguments == ("a", "--foo")
    assert parsed.given == {"v"}


def test_deprecated_flags_work_and_warn() -> None:
    assert parse(FLAGS, ["--old=x"]).warnings == ("Flag --old has been deprecated, use --new",)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help(word: str) -> None:
    with pytest.raises(HelpRequested):
        parse(FLAGS, [word])
    assert "      --sync-period duration\n        How often (default 30s)" in usage("kube-x", "It runs.", FLAGS)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1h2m3s", 3723), ("1.5s", 1.5), ("100ms", 0.1), ("-2m", -120), (".5m", 30), ("24h", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "5", "1h5", "-", "1 s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)


@given(st.integers(0, 10**7))
def test_durations_survive_the_way_there_and_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("kind", Type.__args__)
def test_every_type_is_shown_in_help(kind: Type) -> None:
    assert "--x" in usage("c", "s", [Flag("x", kind, None, "h")])
