import numpy as np

from bistable_rl.analysis.align import align, at, observations


def test_values_are_averaged_at_the_same_distance_from_the_event() -> None:
    values = np.arange(12.0).reshape(1, 6, 2)  # values[0, t, i] = 2 t + i
    lengths = np.array([6, 4])
    found = align(values, lengths, at(np.array([2, 3]), 6), before=3, after=2)
    assert found.offset.tolist() == [-3, -2, -1, 0, 1, 2]
    # sequence 0 has steps 0..5, event at 2; sequence 1 has steps 0..3, event at 3
    np.testing.assert_array_equal(found.mean, [[1, (0 + 3) / 2, (2 + 5) / 2, (4 + 7) / 2, 6, 8]])


def test_where_no_sequence_reaches_there_is_no_mean() -> None:
    found = align(np.ones((2, 3, 1)), np.array([2]), at(np.array([0]), 3), before=1, after=2)
    np.testing.assert_array_equal(found.mean, np.array([[np.nan, 1, 1, np.nan]] * 2))


def test_the_observations_are_differences_before_and_after_the_marks_and_at_them() -> None:
    T, n = 40, 3
    marked = at(np.array([10, 12, 14]), T) | at(np.array([20, 21, 22]), T)
    passed = marked.cumsum(0)
    share = np.stack([0.2 + 0.1 * passed, np.full((T, n), 0.4)])
    mean_c = np.stack([np.where(marked, 0.3, 0.5 + 0.05 * passed), np.full((T, n), 0.6)])
    answer = np.full(n, 35)
    share[:, 35:], mean_c[:, 35:] = 9.0, 9.0  # what happens while it answers does not count
    found = observations(share, mean_c, marked, answer)
    assert found.share_rise is not None
    np.testing.assert_allclose(found.share_rise, [0.2, 0], atol=1e-12)
    np.testing.assert_allclose(found.c_rise, [0.1, 0], atol=1e-12)
    # before the first mark c is 0.5, before the second 0.55
    np.testing.assert_allclose(found.c_dip, [0.3 - 0.525, 0], atol=1e-12)
    assert observations(None, mean_c, marked, answer).share_rise is None
