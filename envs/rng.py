"""Random numbers as a function of a copy's seed, its episode and an index within the episode.

A batch of n copies must have the episodes of n single environments, in any order of resets. So there is no generator to
share or to advance: `episode_keys` gives each (seed, episode) a key, and the other functions return random number
`index` of a key's stream. They work on whole arrays, and any number can be computed again at any time.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). Its
state is the key plus a multiple of an odd constant, so number `index` does not depend on the numbers before it.
"""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64] | int

ONCE = 1 << 40
"""Indices from here on belong to draws made once per episode; those below belong to its steps."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: Keys) -> Keys:
    """Mix 64 bits (the finaliser of SplitMix64), with wrap-around."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _bits(keys: Keys, index: Index) -> Keys:
    """Return 64 random bits, number `index` of each key's stream."""
    # atleast_1d: numpy warns of integer overflow for scalars only, and overflow is intended here.
    return _mix(keys + (np.atleast_1d(index).astype(np.uint64) + np.uint64(1)) * _GAMMA)


def episode_keys(seeds: Keys, episodes: npt.NDArray[np.int64]) -> Keys:
    """Return the key of each copy's episode.

    Args:
        seeds: (n,), the seed of each copy.
        episodes: (n,), the number of episodes of each copy since it was seeded.

    Returns:
        (n,) keys.
    """
    return _bits(_mix(seeds + _GAMMA), episodes)


def integers(keys: Keys, index: Index, high: int) -> npt.NDArray[np.int64]:
    """Return integers drawn uniformly from 0..high-1, shaped as `keys` and `index` broadcast."""
    return (((_bits(keys, index) >> np.uint64(32)) * np.uint64(high)) >> np.uint64(32)).astype(np.int64)


def uniform(keys: Keys, index: Index) -> npt.NDArray[np.float64]:
    """Return numbers drawn uniformly from [0, 1)."""
    return (_bits(keys, index) >> np.uint64(11)) * 2.0**-53


def normal(keys: Keys, index: Index) -> npt.NDArray[np.float64]:
    """Return standard normal numbers (Box and Muller, 1958), within ±6.8."""
    radius, angle = _polar(keys, index)
    return radius * np.cos(angle)


def normal_pairs(keys: Keys, index: Index) -> npt.NDArray[np.float64]:
    """Return pairs of independent standard normal numbers, (..., 2), at half the cost of `normal`."""
    radius, angle = _polar(keys, index)
    pairs = np.empty((*radius.shape, 2))
    np.multiply(radius, np.cos(angle), out=pairs[..., 0])
    np.multiply(radius, np.sin(angle), out=pairs[..., 1])
    return pairs


def _polar(keys: Keys, index: Index) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return radius and angle of points in the plane with standard normal coordinates."""
    bits = _bits(keys, index)
    radius = np.sqrt(-2.0 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
    return radius, (bits & np.uint64(0xFFFFFFFF)) * (2.0 * np.pi * 2.0**-32)


def permutations(keys: Keys, index: int, size: int) -> npt.NDArray[np.int64]:
    """Return permutations of 0..size-1 drawn uniformly, (n, size), from the random numbers from `index` on."""
    numbers = np.arange(size)
    low = np.uint64(2 ** int(size).bit_length() - 1)
    drawn = (_bits(keys[:, None], index + numbers) & ~low) | numbers.astype(np.uint64)  # no number is drawn twice
    drawn.sort(axis=1)
    return (drawn & low).astype(np.int64)
