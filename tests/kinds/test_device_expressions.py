"""Expressions that select devices: what Kubernetes adds to CEL for them."""

from __future__ import annotations

import pytest

from shipwheel.kinds.resource.expressions import ExpressionError, selector

DEVICE = {
    "name": "d0",
    "attributes": {
        "model": {"string": "a100"},
        "count": {"int": 3},
        "fast": {"bool": True},
        "other.io/driver": {"version": "1.2.3-beta.1"},
    },
    "capacity": {"memory": {"value": "80Gi"}},
    "allowMultipleAllocations": True,
}
MINE = 'device.attributes["gpu.io"]'
MEMORY = 'device.capacity["gpu.io"].memory'
VERSION = 'device.attributes["other.io"].driver'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('device.driver == "gpu.io"', True),
        ("device.allowMultipleAllocations", True),
        (f"{MINE}.fast", True),
        (f'{MINE}.model == "a100" && {MINE}.count > 2', True),
        (f'{MINE}.model.lowerAscii().startsWith("h")', False),
        (f'{MINE}.model in ["a100", "h100"]', True),
        (f'{MINE}.model.matches("^a[0-9]+$")', True),
        (f"cel.bind(mine, {MINE}, mine.fast && mine.count == 3)", True),
        (f"{MINE}.?size.orValue(0) == 0", True),
        # A domain that the device knows nothing of is empty.
        ('has(device.attributes["none.io"].model)', False),
        ('"model" in device.attributes["none.io"]', False),
        (f'{MEMORY}.compareTo(quantity("80Gi")) == 0', True),
        (f'{MEMORY} == quantity("81920Mi")', True),
        (f'{MEMORY}.isGreaterThan(quantity("80G"))', True),
        (f'{MEMORY}.isLessThan(quantity("80G"))', False),
        (f'{MEMORY}.sub(quantity("79Gi")).asInteger() == 1073741824', True),
        (f"{MEMORY}.add(1).asInteger() == 85899345921", True),
        (f"{MEMORY}.sign() == 1 && {MEMORY}.isInteger()", True),
        ('quantity("1500m").asApproximateFloat() == 1.5', True),
        ('quantity("1500m").isInteger()', False),
        ('isQuantity("1.5Gi") && !isQuantity("x")', True),
        (f'{VERSION}.isLessThan(semver("1.2.3"))', True),
        (f'{VERSION}.isGreaterThan(semver("1.2.3-beta.0"))', True),
        (f'{VERSION}.compareTo(semver("1.2.3-beta.1+build")) == 0', True),
        ('semver("1.0.0-alpha.9").isLessThan(semver("1.0.0-alpha.beta"))', True),
        (f"{VERSION}.major() == 1 && {VERSION}.minor() == 2 && {VERSION}.patch() == 3", True),
        ('isSemver("1.0.0") && !isSemver("v1.0") && !isSemver("01.0.0")', True),
    ],
)
def test_answers(expression: str, expected: bool) -> None:
    assert selector(expression).matches("gpu.io", DEVICE) is expected


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("device.", "compilation failed: "),
        ("device.driver == 1 +", "compilation failed: "),
        ("nothing", "compilation failed: "),
        ('size("a")', "must evaluate to bool or the unknown type, not int"),
    ],
)
def test_what_cannot_be_compiled(expression: str, complaint: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        selector(expression)
    assert str(raised.value).startswith(complaint)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        (f"{MINE}.size > 1", "no such key: size"),
        ('device.attributes["none.io"].model == "x"', "no such key: model"),
        (f"{MINE}.model", "CEL result of type string could not be converted to bool"),
        (f'{MEMORY}.isLessThan(quantity("x"))', "quantities must match the regular expression"),
    ],
)
def test_what_has_no_answer(expression: str, complaint: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        selector(expression).matches("gpu.io", DEVICE)
    assert str(raised.value).startswith(complaint)
