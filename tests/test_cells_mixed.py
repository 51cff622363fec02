"""Units of several kinds side by side: what the tests of every cell do not ask."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from bistable_rl import kernels
from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.training import train
from bistable_rl.cells import GRUCell, LSTMCell, MixedCell, NBRCCell
from bistable_rl.cells.base import fixed_weights
from bistable_rl.cli import main
from bistable_rl.dynamics.gates import gate_trace
from bistable_rl.rnn import make_rnn
from bistable_rl.runs.devices import chosen_backend
from bistable_rl.runs.run import Run
from bistable_rl.runs.schema import Experiment

F, H, B, T = 3, 8, 4, 6
LSTM_FIRST = {"parts": {"lstm": 5, "nbrc": 3}}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_each_kind_computes_what_it_computes_alone() -> None:
    rnn = make_rnn("mixed", F, H, cell_kwargs={**LSTM_FIRST, "learn_initial_state": True})
    lstm, nbrc = LSTMCell(F, 5, learn_initial_state=True), NBRCCell(F, 3, learn_initial_state=True)
    for kind, same in zip(rnn.layers[0].cells, (lstm, nbrc), strict=True):
        torch.nn.init.normal_(same.get_parameter("initial"))
        kind.load_state_dict(same.state_dict())
    sequences = [torch.randn(n, F) for n in (6, 4, 3)]
    resets = [torch.rand(n) < 0.3 for n in (6, 4, 3)]
    packed, cuts = pack_sequence(sequences), pack_sequence(resets)
    h, c, n = torch.randn(1, 3, 5), torch.randn(1, 3, 5), torch.randn(1, 3, 3)
    output, last = rnn(packed, torch.cat([h, n, c], -1), cuts)
    alone = [
        cell.scan(packed.data, state, cuts.data, packed.batch_sizes)
        for cell, state in ((lstm, torch.cat([h, c], -1)[0]), (nbrc, n[0]))
    ]
    assert torch.equal(output.data, torch.cat([outputs for outputs, _ in alone], -1))
    (lstm_last, nbrc_last) = (state for _, state in alone)
    assert torch.equal(last[0], torch.cat([lstm_last[:, :5], nbrc_last, lstm_last[:, 5:]], -1))
    assert rnn.state_size == 5 + 3 + 5


def test_the_kinds_run_on_their_own_kernels_in_one_scan_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rnn, scan = make_rnn("mixed", F, H), kernels.scan
    scans: list[str] = []

    def noted(cell: str, *arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scans.append(cell)
        return scan(cell, *arguments, **options)

    monkeypatch.setattr(kernels, "scan", noted)
    rnn(torch.randn(T, B, F))[0].sum().backward()
    assert scans == ["nbrc", "gru"]
    assert chosen_backend(rnn.layers, "cpu") == kernels.choose("nbrc", "cpu", torch.float32, 4)
    slow = make_rnn("mixed", F, H, cell_kwargs={"parts": {"nbrc": 4, "goru": 4}})
    assert chosen_backend(slow.layers, "cpu").backend == "reference"


@torch.no_grad()
@pytest.mark.parametrize("parts", [None, LSTM_FIRST["parts"]])
def test_a_step_of_acting_takes_the_short_road_of_every_kind(
    parts: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rnn = make_rnn("mixed", F, H, cell_kwargs={"parts": parts, "learn_initial_state": True})
    x, hx, resets = torch.randn(1, B, F), torch.randn(1, B, rnn.state_size), torch.tensor([[1, 0, 0, 1]])
    expected = rnn.layers[0].scan(x, hx[0], resets)
    monkeypatch.setattr(MixedCell, "scan", None)
    with fixed_weights(rnn):
        output, last = rnn(x, hx, resets)
    torch.testing.assert_close((output, last[0]), expected)
    torch.testing.assert_close(rnn(x, hx, resets)[0], output)


def test_shared_options_reach_every_kind_that_has_them_and_others_one_kind() -> None:
    cell = MixedCell(F, H, c_bias=3.0, recompute=True, of_kind={"nbrc": {"candidate_bias": True, "c_bias": -2.0}})
    nbrc, gru = cell.cells
    assert isinstance(nbrc, NBRCCell)
    assert isinstance(gru, GRUCell)
    assert nbrc.bias is not None
    assert gru.bias_ih is not None
    assert nbrc.bias[4:6].tolist() == [-2.0] * 2
    assert len(nbrc.bias) == 12
    assert gru.bias_ih[4:8].tolist() == [3.0] * 4
    assert nbrc.recompute
    assert gru.recompute


def test_nbrc_starts_in_halves_unless_told_otherwise_or_without_biases() -> None:
    told: list[dict[str, Any]] = [{}, {"start": "paper"}, {"of_kind": {"nbrc": {"start": "paper"}}}]
    nbrcs = [MixedCell(F, H, **options).cells[0] for options in told]
    assert [nbrc.get_parameter("bias")[:4].tolist() for nbrc in nbrcs] == [[1.0, 1.0, -1.5, -1.5], [0.0] * 4, [0.0] * 4]
    assert MixedCell(F, H, bias=False).cells[0].start == "paper"
    with pytest.raises(ValueError, match="start='halves' needs bias=True"):
        MixedCell(F, H, bias=False, start="halves")


def test_an_odd_unit_is_of_the_first_kind_and_one_unit_alone_too() -> None:
    assert [cell.hidden_size for cell in MixedCell(F, 5).cells] == [3, 2]
    assert [cell.hidden_size for cell in MixedCell(F, 1).cells] == [1]


def test_gates_are_traced_over_all_units_and_only_nbrcs_have_a_gain() -> None:
    rnn = make_rnn("mixed", F, H)
    x = torch.randn(T, B, F)
    trace = gate_trace(rnn, x)
    assert trace.a is not None
    assert trace.gate == "c"
    assert trace.c.shape == trace.a.shape == trace.h.shape == (1, T, B, H)
    assert (trace.a[..., :4] > 0).all()
    assert (trace.a[..., 4:] == 0).all()
    nbrc, gru = rnn.layers[0].cells
    np.testing.assert_allclose(trace.c[0, 0, :, :4], nbrc.gates(nbrc.project(x[0]), torch.zeros(B, 4))["c"].detach())
    np.testing.assert_allclose(trace.c[0, 0, :, 4:], gru.gates(gru.project(x[0]), torch.zeros(B, 4))["z"].detach())


def test_an_archive_holds_the_kinds(tmp_path: Path) -> None:
    kwargs = {"cell": "mixed", "hidden_size": 8, "cell_kwargs": LSTM_FIRST, "critic": "shared"}
    model = RecurrentPPO("MlpRecurrentPolicy", "CartPole-v1", n_steps=16, batch_size=16, seed=0, policy_kwargs=kwargs)
    model.learn(16)
    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model", device="cpu")
    obs = np.ones((3, 4), np.float32)
    states = [agent.predict(obs)[1] for agent in (model, loaded)]
    assert states[0] is not None
    assert states[1] is not None
    np.testing.assert_array_equal(states[0][0], states[1][0])
    assert states[0][0].shape == (1, 3, 13)


def test_a_run_trains_and_is_analysed(experiment: Experiment, tmp_path: Path) -> None:
    experiment.policy.cell, experiment.policy.cell_kwargs = "mixed", {"parts": {"brc": 6, "gru": 2}}
    run = train(experiment, tmp_path)
    assert Run(run).folder.name == "mixed-seed0"
    assert main(["analyze", str(run), "--episodes", "4"]) == 0
    assert "of units bistable" in (run / "analysis" / "analysis.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('{"parts": {"nbrc": 4}}', "parts must add up to hidden_size 8, got {'nbrc': 4}"),
        ('{"parts": {"gur": 8}}', "unknown kind in parts 'gur'; did you mean 'gru'?"),
        ('{"of_kind": {"nbrc": {"init": "keras"}}}', "of_kind: nbrc: unknown option 'init'"),
        ('{"part": {"nbrc": 8}}', "cell 'mixed': unknown option 'part'; did you mean 'parts'?"),
    ],
)
def test_a_wrong_mixture_is_one_sentence_on_the_command_line(
    options: str, expected: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(config), "--policy.cell", "mixed", "--policy.cell_kwargs", options, "--out", str(tmp_path)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
