import numpy as np
import pytest
import torch

from bistable_rl import make_rnn, warm_up
from bistable_rl.rnn import RNN


def gru(seed: int = 0) -> RNN:
    torch.manual_seed(seed)
    return make_rnn("gru", 2, 16)


def sequences(seed: int = 1) -> torch.Tensor:
    return torch.randn(15, 24, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("cell", "hidden_size"), [("gru", 32), ("lstm", 64)])
def test_a_monostable_network_reaches_many_attractors_after_a_warm_up(cell: str, hidden_size: int) -> None:
    torch.manual_seed(0)
    result = warm_up(make_rnn(cell, 2, hidden_size), sequences(), batch_size=24)
    assert result.before.count == pytest.approx(1)
    assert result.after.count > 4
    assert result.after.vaa_star.mean() > result.before.vaa_star.mean()
    assert result.summary()["attractors"] == [result.before.count, result.after.count]
    assert len(result.loss) == 100


@pytest.mark.parametrize("cell", ["brc", "nbrc", "plastic_gru"])
def test_every_layer_of_other_cells_is_moved_too(cell: str) -> None:
    torch.manual_seed(0)
    rnn = make_rnn(cell, 2, 8, 2)
    start = {name: value.clone() for name, value in rnn.state_dict().items()}
    result = warm_up(rnn, sequences(), steps=3, batch_size=4)
    assert np.isfinite(result.loss).all()
    moved = {name.split(".")[1] for name, value in rnn.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"0", "1"}
    assert all(parameter.grad is None for parameter in rnn.parameters())


def test_a_warm_up_is_the_same_for_the_same_seed_and_moves_no_other_generator() -> None:
    state = torch.get_rng_state()
    weights = []
    for seed in (3, 3, 4):
        rnn = gru()
        torch.set_rng_state(state)
        warm_up(rnn, sequences(), steps=3, batch_size=8, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(torch.cat([p.flatten() for p in rnn.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_whole_episodes_of_different_lengths_end_where_they_end() -> None:
    lengths = torch.randint(1, 16, (24,), generator=torch.Generator().manual_seed(0))
    padded = sequences()
    for i, length in enumerate(lengths.tolist()):
        padded[length:, i] = 1e3
    one, other = gru(), gru()
    warm_up(one, sequences(), lengths, steps=3, batch_size=8, truncate=False)
    warm_up(other, padded, lengths, steps=3, batch_size=8, truncate=False)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_dropout_is_off_while_warming_up_and_on_again_after_it() -> None:
    torch.manual_seed(0)
    rnn = make_rnn("gru", 2, 8, 2, dropout=0.9)
    state = torch.get_rng_state()
    warm_up(rnn, sequences(), steps=2, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert rnn.training


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size at least 2, got 1 and 1"):
        warm_up(gru(), sequences(), steps=1, batch_size=1)
    with pytest.raises(ValueError, match=r"must be \(T, n, 2\)"):
        warm_up(gru(), torch.zeros(5, 4, 3))
    with pytest.raises(ValueError, match="became nan at step 0"):
        warm_up(gru(), torch.full((5, 4, 2), float("nan")), steps=1, batch_size=4)
