"""The command itself: fast help, complete help, lists that are true."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

import bistable_rl
from bistable_rl.cli import COMMANDS, main
from bistable_rl.errors import UserError


def loaded(code: str) -> str:
    """Run code in a fresh interpreter and say whether torch was loaded."""
    code += "\nimport sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "from bistable_rl.cli import main; main(['--help'])",
        "from bistable_rl.cli import main; main(['train', '--help'])",
        "from bistable_rl.cli import main; main(['list', 'envs'])",
        "import bistable_rl; dir(bistable_rl)",
        "import bistable_rl.envs",
    ],
)
def test_help_and_environments_load_no_torch(code: str) -> None:
    assert loaded(code) == "False"


def test_the_public_names_resolve_when_used() -> None:
    code = "import bistable_rl\nfor name in bistable_rl.__all__: assert getattr(bistable_rl, name) is not None, name"
    assert loaded(code) == "True"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bistable_rl.__getattr__("nothing")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert f"usage: bistable-rl {command}" in capsys.readouterr().out


def test_train_help_shows_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    text = capsys.readouterr().out
    for key in ("--algorithm.gae_lambda", "--policy.cell_kwargs", "--checkpoint.keep", "default: 0.98"):
        assert key in text


def test_lists_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in (("cells", "nbrc"), ("envs", "bistable_rl/TMaze-v0"), ("configs", "rl/copy_first")):
        assert main(["list", what]) == 0
        assert f"{name} " in capsys.readouterr().out


def test_doctor_names_versions_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("python", "torch", "stable-baselines3", "cuda", "kernels"):
        assert word in text
    assert "kernels    mixed: those of its kinds, by default nbrc and gru\n" in text


def test_a_closed_pipe_is_no_error() -> None:
    command = f"({sys.executable} -m bistable_rl.cli list envs; echo left with $? >&2) | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == "left with 0\n"


SMALL = """\
name: small
env: {id: bistable_rl/CopyFirst-v0, kwargs: {length: 3}, num_envs: 2}
policy: {hidden_size: 4}
algorithm: {n_steps: 16, batch_size: 16, n_epochs: 1}
total_steps: 32
evaluation: {episodes: 2}
"""


def command(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of the shell in a folder, in which $CLI is the command."""
    (folder / "small.yaml").write_text(SMALL)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    inherited |= {"CLI": f"{sys.executable} -m bistable_rl.cli", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**inherited, **environment}, capture_output=True, timeout=120
    )


@pytest.mark.parametrize(
    "encoding",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_narrow_encoding_spells_what_it_lacks(encoding: dict[str, str], tmp_path: Path) -> None:
    for line, word in (("$CLI train --help", b"lambda of the"), ("$CLI list cells", b"the last theta steps")):
        done = command(line, tmp_path, **encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        assert word in done.stdout


def test_a_training_ends_well_in_ascii(tmp_path: Path) -> None:
    done = command("$CLI train small.yaml", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b" +/- " in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_device_is_one_sentence(unbuffered: dict[str, str], tmp_path: Path) -> None:
    done = command("$CLI list envs > /dev/full", tmp_path, **unbuffered)
    assert done.returncode == 1
    assert b"standard output cannot be written: No space left on device." in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_has_gone_is_no_error(unbuffered: dict[str, str], tmp_path: Path) -> None:
    done = command("($CLI list envs 2>&1; echo left with $? > code) | true; cat code", tmp_path, **unbuffered)
    assert done.stdout == b"left with 0\n"
    assert done.stderr == b""


@pytest.mark.parametrize("redirection", [">&- 2>&- <&-", "2>/dev/full"])
def test_a_training_finishes_where_nobody_reads(redirection: str, tmp_path: Path) -> None:
    done = command(f"$CLI train small.yaml {redirection}", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    run = tmp_path / "runs/small/mixed-seed0"
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("time/"), "a closed stream's number must not go to the next file"


def test_a_wrong_command_whose_sentence_nobody_reads_is_still_2(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"):
        assert command(f"$CLI trian {redirection}", tmp_path).returncode == 2


def test_a_pipe_is_read_as_a_config(tmp_path: Path) -> None:
    done = command("$CLI train <(cat small.yaml) --total_steps 16 && ls runs/small", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"mixed-seed0\n")
    assert b"run `bistable-rl train` on it" in command("$CLI benchmark <(cat small.yaml)", tmp_path).stderr


def test_a_config_may_have_any_name_that_a_file_can(tmp_path: Path) -> None:
    done = command("cp small.yaml $'\\xff.yaml' && $CLI train $'\\xff.yaml'", tmp_path)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "runs/small/mixed-seed0/environment.json").read_text(encoding="utf-8"))
    assert "\udcff.yaml" in kept["command"]
    refused = command("$CLI train small.yaml --out $'\\xff'", tmp_path)
    assert b"is not UTF-8" in refused.stderr
    assert refused.returncode == 2


def caused(error: Exception, number: int) -> Exception:
    """Return an error that was raised for what the operating system said."""
    error.__context__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("raised", "code", "expected"),
    [
        (SystemExit("text"), 1, 'called sys.exit("text")'),
        (SystemExit(0), 1, "called sys.exit(0)"),
        (SystemExit(None), 1, "called sys.exit()"),
        (OSError(errno.EACCES, "Permission denied", "/some/file"), 2, '"/some/file": Permission denied.'),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "cannot be written: No space left on device."),
        (caused(UserError("x cannot be written: full."), errno.ENOSPC), 1, "x cannot be written: full."),
        (caused(UserError("x cannot be written: denied."), errno.EACCES), 2, "x cannot be written: denied."),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Broken pipe."),
        (MemoryError(), 1, "out of memory"),
        (RecursionError("deep"), 1, "nested too deeply"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_a_command_meets_is_one_sentence(
    raised: BaseException,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Any) -> NoReturn:
        raise raised

    monkeypatch.setitem(COMMANDS, "doctor", fail)
    assert main(["doctor"]) == code
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("bug", [KeyError("x"), AssertionError(), io.UnsupportedOperation("fileno")])
def test_a_bug_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> NoReturn:
        raise bug

    monkeypatch.setitem(COMMANDS, "doctor", fail)
    with pytest.raises(type(bug)):
        main(["doctor"])


LONG = "x" * 256


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["train", "CONFIG", "--out", ""], "argument --out: the name is empty"),
        (["train", "CONFIG", "--out", LONG], "argument --out: a name of 256 bytes is too long"),
        (["train", "CONFIG", "--out", f"a/{LONG}/b"], "argument --out: a name of 256 bytes is too long"),
        (["train", "CONFIG", "--out", "a\0b"], "holds a NUL character"),
        (["train", "--resume", LONG], "argument --resume: a name of 256"),
        (["train", LONG], "no file"),
        (["train", "a\0b"], "no file"),
        (["train", "CONFIG", "--name", LONG], "name must have at most 255 bytes since it names a folder, not 256"),
        (["train", "CONFIG", "--", "--seed"], "unrecognized arguments: --seed"),
        (["train", "/dev/zero"], "larger than"),
        (["train", "compare/copy_first_100"], "run `bistable-rl compare` on it"),
        (["train", "supervised/copy_first"], "run `bistable-rl benchmark` on it"),
        (["benchmark", "compare/copy_first_100"], "run `bistable-rl compare` on it"),
        (["benchmark", "rl/t_maze"], "run `bistable-rl train` on it"),
        (["compare", "rl/t_maze"], "run `bistable-rl train` on it"),
        (["compare", "supervised/copy_first"], "run `bistable-rl benchmark` on it"),
        (["compare", "x", "--workers", "10000000000"], "'10000000000' is more than 999,999,999"),
        (["benchmark", "x", "--data-dir", LONG], "argument --data-dir: a name of 256"),
        (["evaluate", LONG], "argument RUN_DIR: a name of 256"),
        (["evaluate", "x", "--json", LONG], "argument --json: a name of 256"),
        (["evaluate", "x", "--figure", f"{LONG}.png"], "argument --figure: a name of 260"),
        (["evaluate", "x", "--episodes", "1000000000"], "'1000000000' is more than 999,999,999"),
        (["analyze", "x", "--out", LONG], "argument --out: a name of 256"),
        (["figures", "--runs", ""], "argument --runs: the name is empty"),
        (["data", "mnist", "--data-dir", ""], "argument --data-dir: the name is empty"),
        (
            ["play", "bistable_rl/TMaze-v0", "--save", "x.jpg"],
            "--save writes a GIF or an MP4, so its name must end in .gif",
        ),
        (["play", "bistable_rl/TMaze-v0", "--save", f"{LONG}.gif"], "argument --save: a name of 260"),
        (["tensorboard", ".", "--port", "99999"], "'99999' is not a port, an integer from 1 to 65535"),
        (["tensorboard", ".", "--port", "0"], "'0' is not a port"),
        (["tensorboard", LONG], "argument DIR: a name of 256"),
        (["evaluate", "x", "y\n\x1b[31m"], r"unrecognized arguments: y\n\x1b[31m; see"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    argv: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    assert main([token.replace("CONFIG", "small.yaml") for token in argv]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert (out, err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    ("name", "kind"), [("train", "rl/"), ("benchmark", "supervised/"), ("compare", "compare/"), ("tune", "tune/")]
)
def test_help_lists_the_configs_that_the_command_takes(
    name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    shipped = capsys.readouterr().out.partition("Shipped ")[2].partition(": ")[2].partition("\n\n")[0]
    assert all(word.strip().startswith(kind) for word in shipped.split(","))


def test_help_needs_no_docstrings() -> None:
    for argv in (["--help"], ["list", "cells"]):
        done = subprocess.run([sys.executable, "-OO", "-m", "bistable_rl.cli", *argv], capture_output=True, check=True)
        assert done.stderr == b""


def test_python_m_is_the_command_and_takes_no_module_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong yaml')")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bistable_rl", *argv]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "bistable_rl/CopyFirst-v0" in run("list", "envs").stdout
    wrong = run("trian")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("bistable-rl: unknown command 'trian'; did you mean 'train'?")
