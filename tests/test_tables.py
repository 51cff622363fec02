import csv
import math
from pathlib import Path

import numpy as np
import pytest

from bistable_rl.errors import UserError
from bistable_rl.runs.tables import write_csv


def test_columns_are_those_asked_for_then_those_of_the_rows(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"b": 1}, {"c": "one, two\n", "b": None}], ["a"])
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "", "b": "1", "c": ""}, {"a": "", "b": "", "c": "one, two\n"}]


def test_floats_have_six_digits_and_other_values_all_of_theirs(tmp_path: Path) -> None:
    values = {"float": 1 / 3, "numpy": np.float32(2 / 3), "large": 1e7, "int": 12345678, "text": "0.12345678"}
    write_csv(tmp_path / "x.csv", [values | {"inf": math.inf, "numpy int": np.int64(12345678)}])
    assert (tmp_path / "x.csv").read_text().splitlines()[
        1
    ] == "0.333333,0.666667,1e+07,12345678,0.12345678,inf,12345678"


def test_an_empty_table_has_its_header(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [], ["a", "b"])
    assert (tmp_path / "x.csv").read_text() == "a,b\n"


def test_a_folder_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_csv(tmp_path / "missing" / "x.csv", [{"a": 1}])
