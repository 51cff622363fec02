"""The bounds of the kernels' error hold for every backend, with the margins that are printed where they fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
import torch
from certify_networks import layers, policy

from bistable_rl.agents.agent import load
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.cells import BRCCell, NBRCCell
from bistable_rl.certify import rounding
from bistable_rl.certify.enclosure import BALLS, FLOATS, Bounds, image, images, margins, prove_images
from bistable_rl.certify.network import read_network
from bistable_rl.kernels import cpu, use_backend

ISAS = range(cpu.library().brl_choose_isa(-1) + 1) if cpu.available()[0] else range(0)
BACKENDS = [*(f"cpu {isa}" for isa in ISAS), "torch", "reference"]


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Run on a backend, and the C++ with the instruction set of this number: 0 has no fused operations."""
    name, _, isa = backend.partition(" ")
    try:
        if isa:
            cpu.library().brl_choose_isa(int(isa))
        with use_backend(name):
            yield
    finally:
        if isa:
            cpu.library().brl_choose_isa(-1)


def floats(low: float, high: float, stride: int) -> np.ndarray:
    """Return every stride-th float32 from low to high, and their negatives."""
    first, last = np.array([low, high], np.float32).view(np.int32).tolist()
    values = np.arange(first, last, stride, dtype=np.int32).view(np.float32)
    return np.concatenate([values, -values])


@torch.no_grad()
def scan(cell: BRCCell, backend: str, x: np.ndarray, h: float) -> np.ndarray:
    with using(backend):
        last = cell.scan(torch.from_numpy(x)[None, :, None], torch.full((len(x), 1), h))[1]
    return last[:, 0].double().numpy()


@torch.no_grad()
def unit(a: float, c: float | None, candidate: float) -> BRCCell:
    """Return a unit with the arguments a of its gain, and c of its slow gate, or the input itself where c is None."""
    cell: Any = BRCCell(1, 1)
    cell.weight_hh.zero_()
    cell.weight_ih.copy_(torch.tensor([[0.0], [float(c is None)], [candidate]]))
    cell.bias.copy_(torch.tensor([a, c or 0.0]))
    return cell


@pytest.mark.parametrize("numbers", [(1e-7, 20, 211), pytest.param((1, 10, 1), marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernels_tanh_is_as_near_as_stated(backend: str, numbers: tuple[float, float, int]) -> None:
    x = floats(*numbers)
    found = scan(unit(0, -1000, 1), backend, x, 0.0)
    assert 1e-8 < np.abs(found - np.tanh(x.astype(np.float64))).max() < 0.8 * rounding.TANH
    assert np.abs(found).max() == 1  # and never above


@pytest.mark.parametrize("numbers", [(1e-7, 40, 211), pytest.param((8, 19.6, 1), marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernels_sigmoid_is_as_near_as_stated(backend: str, numbers: tuple[float, float, int]) -> None:
    x = floats(*numbers)
    exact = 0.5 + 0.5 * np.tanh(0.5 * x.astype(np.float64))
    found = scan(unit(-1000, None, 0), backend, x, 1.0)
    assert 1e-8 < np.abs(found - exact).max() < 0.8 * rounding.SIGMOID
    assert found.min() >= 0
    assert found.max() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("h", [0.3, -0.7, 0.99999994, 1e-30])
def test_a_saturated_gate_is_exactly_1(backend: str, h: float) -> None:
    x = floats(rounding.HOLD, 1e30, 100_003)
    x = x[x > 0]
    assert (scan(unit(0, None, 0), backend, x, h) == np.float32(h)).all()


LOWER_ENDS = list(zip(rounding.ENDS[1:], rounding.CANDIDATES[1:], strict=True))


def float32(numbers: Any) -> np.ndarray:
    return np.asarray(numbers, np.float32)


def mixtures(more: np.ndarray, less: np.ndarray, h: float, n: float) -> list[np.ndarray]:
    """Return more h + less n in float32: rounded at every operation, and with either product fused into the sum."""
    first, second = (float32(w).astype(np.float64) * float(float32(x)) for w, x in ((more, h), (less, n)))  # exact
    return [float32(first) + float32(second), float32(first + float32(second)), float32(float32(first) + second)]


def weights() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the weights of h and n in the C++ and in the reference: all of those near 1, and some of the others."""
    t = np.concatenate([float32(1 - np.arange(2**16) * 2.0**-24), floats(2**-4, 1, 211), floats(1e-30, 2**-4, 10_007)])
    k = np.concatenate([t, -t]) / 2
    yield float32(0.5) + k, float32(0.5) - k
    c = np.append(t[t >= 0], float32(0))
    yield c, 1 - c


@pytest.mark.parametrize(("end", "candidate"), LOWER_ENDS)
def test_no_gate_passes_an_end(end: float, candidate: float) -> None:
    """The step rises with state and candidate, so only the least ones need a look."""
    assert float32(end) == end
    assert float32(candidate) == candidate
    for sign in (1, -1):
        for more, less in weights():
            for mixed in mixtures(more, less, sign * end, sign * candidate):
                assert (sign * mixed >= end).all()
    c = torch.from_numpy(next(iter(weights()))[0])
    assert (torch.lerp(torch.full_like(c, candidate), torch.full_like(c, end), c) >= end).all()


@pytest.mark.parametrize(("h", "n"), [(0.6, 0.61), (0.75, 0.7501), (0.8, 0.85), (0.9, 0.95), (-0.75, -0.7499)])
def test_some_gates_pass_every_other_number(h: float, n: float) -> None:
    """So the ends are needed: the state goes away from a candidate above it."""
    h = float(np.float32(h))
    assert h not in rounding.ENDS
    assert rounding.floor(np.array(h), np.array(n)) < h
    assert mixtures(*next(iter(weights())), h, n)[0].min() < h


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [BRCCell, NBRCCell])
def test_no_kernel_passes_an_end(backend: str, kind: Any) -> None:
    z = np.concatenate([np.linspace(12, 20, 4_001, dtype=np.float32), floats(1e-3, 30, 100_003)])
    for sign in (1, -1):
        for end, candidate in LOWER_ENDS:
            if abs(candidate) < 1:
                least = candidate + 2 * rounding.TANH
                assert (sign * scan(constant(kind, sign * least), backend, z, sign * end) >= end).all()


@torch.no_grad()
def constant(kind: Any, candidate: float) -> Any:
    """Return a unit with a constant candidate, and the input itself as the argument of c."""
    cell = kind(1, 1, candidate_bias=True)
    cell.weight_hh.zero_()
    cell.weight_ih.copy_(torch.tensor([[0.0], [1.0], [0.0]]))
    cell.bias.copy_(torch.tensor([-1000.0, 0.0, np.arctanh(candidate)]))
    return cell


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("h", [1 - 2**-24, 1.0, 1 + 2**-23, 1 + 2**-20, 1.125])
def test_a_state_at_1_or_beyond_lies_in_its_enclosure(backend: str, h: float) -> None:
    agent = policy(1, 2)
    cell = layers(agent)[0]
    cell.load_state_dict(unit(3.0, None, 0).state_dict())
    [layer], z = read_network(agent).layers, np.linspace(-5, 20, 501, dtype=np.float32)
    found, x = scan(cell, backend, z, h), z.astype(np.float64)[:, None]
    claims = image(layer, Bounds(x, x), Bounds(np.array([h]), np.array([h])))
    assert ((found >= claims.low[:, 0]) & (found <= claims.high[:, 0])).all()
    assert (claims.high.max() <= 1) == (h <= 1)


def test_float64_tanh_is_far_nearer_than_the_slack() -> None:
    x = np.linspace(-20, 20, 4001)
    exact = [float(flint.arb(float(value)).tanh().mid()) for value in x]
    assert np.abs(np.tanh(x) - exact).max() < 1e-14


def agents() -> Iterator[RecurrentPolicy]:
    """Yield random agents: small and wide, slow and saturated, of several layers, with and without tanh layers."""
    for seed in range(16):
        torch.manual_seed(seed)
        size, depth = [3, 8, 64, 17][seed % 4], 1 + seed // 8
        options = {"candidate_bias": True} if seed % 3 == 0 else {}
        net_arch = [5] if seed % 5 == 0 else []
        kinds: dict[str, Any] = {"num_layers": depth, "net_arch": net_arch, "cell_kwargs": options}
        agent = policy(6, 4, ["brc", "nbrc"][seed // 4 % 2], size, **kinds)
        with torch.no_grad():
            for cell in layers(agent):
                cell.weight_ih.mul_(2)
                cell.weight_hh.add_(0.3 * torch.randn(cell.weight_hh.shape))
                cell.bias.add_(torch.randn(cell.bias.shape) * (8 if seed % 2 else 1))
        yield agent


@torch.no_grad()
def run(agent: RecurrentPolicy, backend: str, x: np.ndarray, h: torch.Tensor) -> tuple[np.ndarray, ...]:
    """Return states (L, n, H) and log-probabilities (n, actions) after one step, and states that `advance` returns."""
    obs = torch.from_numpy(x)
    with using(backend):
        output, _, state = agent._advance(obs[None], h)
        advanced = agent.advance(obs[None], h, torch.zeros(1, len(x)))
    distribution: Any = agent._distribution(agent.actor_mlp(output[0]))
    return state.double().numpy(), distribution.log_probs.double().numpy(), advanced.double().numpy()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_lies_in_its_enclosure(backend: str) -> None:
    generator, used = np.random.default_rng(0), 0.0
    for agent in agents():
        network, L, H = read_network(agent), agent.memory.num_layers, agent.memory.hidden_size
        for width in (0.0, 0.1):
            centre = generator.uniform(-1, 1, (L, H)).astype(np.float32)
            low, high = centre - np.float32(width), centre + np.float32(width)
            x = generator.normal(size=6).astype(np.float32)
            h = generator.uniform(low, high, (200, L, H)).astype(np.float32).clip(low, high)
            box = [Bounds(*ends) for ends in zip(low.astype(float), high.astype(float), strict=True)]
            x_box = Bounds(x[None].astype(float), x[None].astype(float))
            claims = images(network, x_box, box)
            assert prove_images(network, x_box, box, claims) is None
            before = torch.from_numpy(h).swapaxes(0, 1).contiguous()
            states, log_probs, advanced = run(agent, backend, np.tile(x, (200, 1)), before)
            for claim, state, other in zip(claims, states, advanced, strict=True):
                assert (state >= claim.low).all()
                assert (state <= claim.high).all()
                assert (other >= claim.low).all()
                assert (other <= claim.high).all()
                if not width:
                    middle, radius = (claim.low + claim.high) / 2, (claim.high - claim.low) / 2
                    free = ~(np.isin(claim.low, rounding.ENDS) | np.isin(claim.high, -rounding.ENDS))
                    used = max(used, float((np.abs(state - middle) / radius)[:, free[0]].max(initial=0)))
            for action in range(4):
                least = margins(BALLS, network, claims[-1], action)
                others = [k for k in range(4) if k != action]
                assert (log_probs[:, [action]] - log_probs[:, others] >= least[:, others]).all()
                assert (least[:, others] <= margins(FLOATS, network, claims[-1], action)[:, others] + 1e-9).all()
    assert 0.02 < used < 0.8  # the share of the bound that is needed


def test_a_step_of_a_trained_agent_lies_in_its_enclosure(trained: Path) -> None:
    agent = load(trained).policy
    network, generator = read_network(agent), np.random.default_rng(0)
    x = np.eye(2, 4, dtype=np.float32)[generator.integers(2, size=500)]
    h = torch.zeros(1, 500, 8)
    for _ in range(20):
        states, _, _ = run(agent, BACKENDS[0], x, h)
        rows = Bounds(x.astype(float), x.astype(float))
        for i in range(0, 500, 50):
            before = h[0, i].double().numpy()
            [claim] = images(network, rows.rows(slice(i, i + 1)), [Bounds(before, before)])
            assert (states[0, i] >= claim.low[0]).all()
            assert (states[0, i] <= claim.high[0]).all()
        h = torch.from_numpy(states).float()
