"""Argument checks: what they return, and the sentence they refuse with."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bistable_rl import checks


@pytest.mark.parametrize(
    ("check", "arguments", "expected"),
    [
        (checks.check_int, ("n", 3, 1), 3),
        (checks.check_int, ("n", np.int32(3), 1, 3), 3),
        (checks.check_size, ("n", checks.LARGEST_SIZE), checks.LARGEST_SIZE),
        (checks.check_number, ("x", 0), 0.0),
        (checks.check_number, ("x", np.float32(0.5), 0.0, 1.0), 0.5),
        (checks.check_positive, ("x", 1e-30), 1e-30),
        (checks.check_bool, ("b", False), False),
        (checks.check_choice, ("c", "a", ["a", "b"]), "a"),
    ],
)
def test_a_value_that_fits_is_returned_as_a_plain_one(check: Any, arguments: tuple[Any, ...], expected: object) -> None:
    returned = check(*arguments)
    assert returned == expected
    assert type(returned) is type(expected)


@pytest.mark.parametrize(
    ("check", "arguments", "sentence"),
    [
        (checks.check_int, ("n", True, 1), "n must be an integer above 0, got True"),
        (checks.check_int, ("n", 2.0, 0), "n must be an integer of at least 0, got 2.0"),
        (checks.check_int, ("n", 4, 1, 3, ", the limit"), "n must be an integer from 1 to 3, the limit, got 4"),
        (checks.check_size, ("n", 2**31), "n must be an integer from 1 to 2147483647, got 2147483648"),
        (checks.check_size, ("n", 1, 2, ", a reason"), "n must be an integer of at least 2, a reason, got 1"),
        (checks.check_number, ("x", float("nan")), "x must be a finite number of at least 0, got nan"),
        (checks.check_number, ("x", 10**400), "x must be a finite number of at least 0, got 10"),
        (checks.check_number, ("x", "1", 0.0, 1.0), "x must be a number from 0 to 1, got '1'"),
        (checks.check_positive, ("x", 0), "x must be a finite number above 0, got 0"),
        (
            checks.check_choice,
            ("c", "gruu", ["lstm", "gru"]),
            "unknown c 'gruu'; did you mean 'gru'? The choices are gru,",
        ),
        (checks.check_choice, ("c", ["gru"], ["gru"]), "unknown c ['gru']"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(check: Any, arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        check(*arguments)
    assert str(caught.value).startswith(sentence)


def test_a_number_is_no_switch() -> None:
    with pytest.raises(TypeError, match="b must be True or False; got 1"):
        checks.check_bool("b", 1)


def test_many_choices_are_not_all_listed() -> None:
    with pytest.raises(
        ValueError, match=r"did you mean 'c7'\? The nearest of the 100 choices are c7\d?, .*\.$"
    ) as caught:
        checks.check_choice("c", "cc7", [f"c{i}" for i in range(100)])
    assert str(caught.value).count(",") == 4
    with pytest.raises(ValueError, match=r"unknown c 'gru'; none of the 100 choices is near it\.$"):
        checks.check_choice("c", "gru", [f"c{i}" for i in range(100)])
    with pytest.raises(ValueError, match=r"unknown c 'grru'; did you mean 'gru'\?$"):
        checks.check_choice("c", "grru", ["gru", *(f"c{i}" for i in range(100))])


def test_the_checks_import_neither_torch_nor_numpy() -> None:
    code = "import bistable_rl.checks, sys; sys.exit(bool({'torch', 'numpy', 'gymnasium'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
