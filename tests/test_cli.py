"""The command itself: fast help, complete help, lists that are true."""

import contextlib
import subprocess
import sys

import pytest

import bistable_rl
from bistable_rl.cli import COMMANDS, main


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
    for key in ("--algorithm.gae_lambda", "--policy.cell_kwargs", "--checkpoint.keep", "default: 0.95"):
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


def test_a_closed_pipe_is_no_error() -> None:
    command = f"({sys.executable} -m bistable_rl.cli list envs; echo left with $? >&2) | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == "left with 0\n"
