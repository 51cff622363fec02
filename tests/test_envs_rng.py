import numpy as np
import pytest

from bistable_rl.envs import rng

KEYS = rng.episode_keys(np.arange(200, dtype=np.uint64), np.zeros(200, np.int64))


def test_the_stream_of_a_key_is_splitmix64s() -> None:
    """Against the first outputs of the generator with state 0, as its author's C code gives them."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert rng._bits(np.zeros(1, np.uint64), np.arange(3)).tolist() == expected


def test_a_draw_depends_on_its_key_and_index_alone() -> None:
    together = rng.uniform(KEYS[:, None], np.arange(50))
    assert together.shape == (200, 50)
    for copy, index in [(0, 0), (3, 49), (199, 7)]:
        assert together[copy, index] == rng.uniform(KEYS[copy : copy + 1], index)[0]


def test_neighbouring_seeds_and_episodes_have_other_keys() -> None:
    seeds, episodes = np.meshgrid(np.arange(1000, dtype=np.uint64), np.arange(200))
    assert len(np.unique(rng.episode_keys(seeds.ravel(), episodes.ravel()))) == 200_000


@pytest.mark.parametrize("high", [1, 2, 3, 10, 1797])
def test_integers_are_uniform(high: int) -> None:
    numbers = rng.integers(KEYS[:, None], np.arange(1000), high)
    counts = np.bincount(numbers.ravel(), minlength=high)
    assert len(counts) == high
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi2 < high + 5 * np.sqrt(2 * high)


def test_uniform_numbers_are_uniform_and_their_neighbours_unrelated() -> None:
    numbers = rng.uniform(KEYS[:, None], np.arange(1000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(np.histogram(numbers, 20, (0, 1))[0] / numbers.size - 1 / 20).max() < 0.002
    for a, b in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01


def test_normal_numbers_are_normal_and_bounded() -> None:
    numbers = rng.normal(KEYS[:, None], np.arange(5000)).ravel()
    moments = [np.mean(numbers**k) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.03)
    assert np.mean(np.abs(numbers) > 2) == pytest.approx(0.0455, abs=0.001)
    assert np.abs(numbers).max() < 6.8


def test_the_two_numbers_of_a_pair_are_normal_and_independent() -> None:
    pairs = rng.normal_pairs(KEYS[:, None], np.arange(5000)).reshape(-1, 2)
    np.testing.assert_array_equal(pairs[:, 0], rng.normal(KEYS[:, None], np.arange(5000)).ravel())
    assert [np.mean(pairs[:, 1] ** k) for k in (1, 2, 3, 4)] == pytest.approx([0, 1, 0, 3], abs=0.03)
    for a in (pairs, pairs**2):
        assert abs(np.corrcoef(a.T)[0, 1]) < 0.005


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_permutation_is_as_likely(size: int) -> None:
    keys = rng.episode_keys(np.arange(24_000, dtype=np.uint64), np.zeros(24_000, np.int64))
    drawn = rng.permutations(keys, 3, size)
    assert (np.sort(drawn) == np.arange(size)).all()
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == [0, 1, 2, 6, 24][size]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < len(counts) + 5 * np.sqrt(2 * len(counts))


def test_a_long_permutation_puts_every_number_everywhere() -> None:
    drawn = rng.permutations(KEYS, 0, 832)
    assert (np.sort(drawn) == np.arange(832)).all()
    assert abs(drawn.mean(0) - 415.5).max() < 5 * 832 / np.sqrt(12 * 200)
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.01
