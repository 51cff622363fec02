"""The spaces of a run, kept in its folder as spaces.json, so that an agent can be loaded without its environment."""

from __future__ import annotations

from typing import NamedTuple

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from bistable_rl.agents.action_masks import MASKS, choices
from bistable_rl.agents.features import as_shown
from bistable_rl.agents.spaces import becomes, check_spaces, from_json, to_json
from bistable_rl.agents.vec_envs import nested_space_of
from bistable_rl.envs.nested import flat_space, is_nested
from bistable_rl.errors import UserError, one_sentence
from bistable_rl.runs.folder import SPACES
from bistable_rl.runs.run import Run

SPACE_NAMES = ("observation", "action", "given")


class Spaces(NamedTuple):
    """The spaces of an environment.

    Attributes:
        observation: The observations as the policy reads them: flat, images with their channels first.
        action: The actions.
        given: The observations as the environment gives them: perhaps nested, images perhaps with their channels last.
        masked: Whether the environment says which actions are allowed.
    """

    observation: spaces.Space
    action: spaces.Space
    given: spaces.Space
    masked: bool = False

    @property
    def nested(self) -> spaces.Space | None:
        """The given space if it is nested, else None."""
        return self.given if is_nested(self.given) else None


def spaces_of_env(env: VecEnv, masked: bool = False) -> Spaces:
    """Return the spaces of an environment; the observation space declares the meaning of the observations."""
    given = nested_space_of(env) or env.unwrapped.observation_space
    return Spaces(as_shown(env.observation_space, env), env.action_space, given, masked)


def write_spaces(run: Run, found: Spaces) -> None:
    """Write spaces.json."""
    shapes = {name: to_json(getattr(found, name)) for name in SPACE_NAMES}
    run.write_spaces({**shapes, MASKS: found.masked})


def read_spaces(run: Run) -> Spaces | None:
    """Return the spaces of a run; None if an earlier version wrote the run, without its spaces.

    Raises:
        UserError: If spaces.json is broken.
    """
    try:
        data = run.spaces
    except FileNotFoundError:
        return None
    try:
        observation, action, given = (from_json(data[name]) for name in SPACE_NAMES)
        found = Spaces(observation, action, given, data.get(MASKS) is True)
        check_spaces(found.observation, found.action)
        if found.masked:
            choices(found.action)
        if not becomes(flat_space(found.given), found.observation):
            raise ValueError(f"observations of {found.given} do not become {found.observation}")
    except Exception as error:  # gymnasium's spaces raise errors of any type for wrong arguments
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{run.folder / SPACES} is broken: {kind}{one_sentence(error)}") from None
    return found
