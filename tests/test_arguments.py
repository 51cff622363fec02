"""The arguments of the algorithm and the policy are the keys of a config: one definition, seen from Python."""

import dataclasses
import inspect
import pydoc
from typing import Any

import pytest

from bistable_rl.agents import RecurrentPPO
from bistable_rl.agents.policy import RecurrentPolicy
from bistable_rl.runs.keys import default_of
from bistable_rl.runs.schema import AlgorithmConfig, PolicyConfig

PAIRS = [(RecurrentPPO, AlgorithmConfig), (RecurrentPolicy, PolicyConfig)]


@pytest.mark.parametrize(("owner", "config"), PAIRS)
def test_the_signature_shows_every_key_with_its_default(owner: type, config: Any) -> None:
    parameters = inspect.signature(owner).parameters
    for field in dataclasses.fields(config):
        assert parameters[field.name].default == default_of(field)
        by_place = field.name == "learning_rate"  # as in SB3
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY
        assert parameters[field.name].kind is kind
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@pytest.mark.parametrize(("owner", "config"), PAIRS)
def test_help_shows_every_key_with_its_meaning(owner: type, config: Any) -> None:
    text = " ".join(pydoc.plain(pydoc.render_doc(owner)).replace("|", " ").split())
    for field in dataclasses.fields(config):
        assert f"{field.name}: {field.metadata['meaning']}".replace("null", "None") in text


def test_an_unknown_argument_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unknown argument 'n_stepz'; did you mean 'n_steps'"):
        RecurrentPPO("RecurrentPolicy", "bistable_rl/TMaze-v0", n_stepz=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown argument 'lstm'; the choices are batch_size, ") as caught:
        RecurrentPPO("RecurrentPolicy", "bistable_rl/TMaze-v0", lstm=8)  # type: ignore[call-arg]
    assert "_init" not in str(caught.value)


def test_a_schedule_is_a_number_a_pair_or_a_function() -> None:
    for rate, half in ((0.1, 0.1), ((0.2, 0.1), 0.15), (lambda left: 0.3 * left, 0.15)):
        algorithm = RecurrentPPO("RecurrentPolicy", "bistable_rl/TMaze-v0", clip_range=rate, learning_rate=rate)
        assert algorithm.clip_range(0.5) == pytest.approx(half)
        assert algorithm.lr_schedule(0.5) == pytest.approx(half)


def test_the_learning_rate_may_be_given_by_its_place_as_in_sb3() -> None:
    algorithm = RecurrentPPO("RecurrentPolicy", "bistable_rl/TMaze-v0", 0.25, n_steps=8)
    assert algorithm.lr_schedule(1.0) == 0.25
    with pytest.raises(ValueError, match="learning_rate must be"):
        RecurrentPPO("RecurrentPolicy", "bistable_rl/TMaze-v0", -1.0)
