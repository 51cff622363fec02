import numpy as np
import pytest
import torch

from bistable_rl import RNN, make_rnn, survival, time_constants


def leaky(cell: str, keep: list[float]) -> RNN:
    """Units that only forget: the slow gate held at `keep`, nothing fed back, no input."""
    rnn = make_rnn(cell, 1, len(keep))
    for parameter in rnn.parameters():
        torch.nn.init.zeros_(parameter)
    H, logit = len(keep), torch.logit(torch.tensor(keep))
    if cell in ("brc", "nbrc"):
        bias = rnn.get_parameter("cells.0.bias").data
        bias[:H], bias[H : 2 * H] = -20, logit  # a = 0
    else:
        rnn.get_parameter("cells.0.bias_ih").data[H : 2 * H] = logit
    return rnn


@pytest.mark.parametrize("cell", ["brc", "nbrc", "gru", "lstm"])
def test_a_unit_that_only_forgets_has_the_time_constant_of_its_gate(cell: str) -> None:
    keep = [0.5, 0.9, 0.97]
    measured = time_constants(leaky(cell, keep), torch.zeros(100, 2, 1))
    # a state shrinks to c^t of itself, below 1/e from t = -1 / log c
    np.testing.assert_array_equal(measured, [[np.ceil(-1 / np.log(c)) for c in keep]])


def test_a_bistable_unit_never_forgets_and_the_second_layer_is_measured_by_itself() -> None:
    rnn = make_rnn("brc", 1, 2, 2)
    for parameter in rnn.parameters():
        torch.nn.init.zeros_(parameter)
    rnn.get_parameter("cells.1.bias").data[0] = 0.5  # a = 1.46 in its first unit, 1 in the others
    measured = time_constants(rnn, torch.randn(300, 2, 1))
    assert measured.shape == (2, 2)
    assert np.isinf(measured).tolist() == [[False, False], [True, False]]


def test_a_cue_survives_in_bistable_units_and_is_lost_in_leaky_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    cues = torch.arange(40) % 2
    x = 0.01 * torch.randn(200, 40, 1, generator=generator)
    x[0, :, 0] = 4.0 * (2 * cues - 1)
    rnn = make_rnn("brc", 1, 1)
    for parameter in rnn.parameters():
        torch.nn.init.zeros_(parameter)
    rnn.get_parameter("cells.0.weight_ih").data[2] = 1
    rnn.get_parameter("cells.0.bias").data[0] = 0.5
    kept = survival(rnn, x, cues)
    assert kept.chance == 0.5
    np.testing.assert_array_equal(kept.accuracy, 1)
    assert kept.steps.tolist() == [np.inf]
    rnn.get_parameter("cells.0.bias").data[0] = -2
    lost = survival(rnn, x, cues)
    assert lost.accuracy[0, 0] == 1
    assert lost.accuracy[0, 100:].mean() == pytest.approx(0.5, abs=0.15)
    assert 1 <= lost.steps[0] < 50


def test_too_few_sequences_of_a_cue_are_refused() -> None:
    rnn, x = make_rnn("gru", 1, 4), torch.zeros(3, 4, 1)
    for cues in ([0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0]):
        with pytest.raises(ValueError, match="at least 2 different cues and 2 sequences of each"):
            survival(rnn, x, np.array(cues))
