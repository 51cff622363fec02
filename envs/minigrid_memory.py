"""MiniGridMemory: MiniGrid's memory task, batched."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import seeding
from typing_extensions import Unpack

from bistable_rl.checks import check_bool, check_choice, check_int, check_size, check_symbols
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.minigrid_world import BALL, EAST, KEY, WALL, shared_world
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.wrappers import CHANNELS, ENCODINGS, Categories, one_hot_cells

LEFT, RIGHT, FORWARD = range(3)
CHARACTERS = np.array(list("? #..kb"))
"""MiniGrid's objects as characters; the first stands for a cell out of sight."""


class MiniGridMemoryVectorEnv(BatchedEnv):
    """MiniGrid's memory task, step for step the same and many times as fast.

    The agent starts in a hallway between a room on the left, which holds a key or a ball, and a junction on the right,
    with a key on one side and a ball on the other. It must go to the same object as in the room. The task needs more
    than keeping a cue: the agent may have to go and look first.

    This is `MiniGrid-Memory` of Chevalier-Boisvert et al. (2023), "Minigrid & Miniworld: Modular & Customizable
    Reinforcement Learning Environments for Goal-Oriented Tasks", NeurIPS. With the same seed and actions the image, the
    direction, the rewards, the ends of the episodes and the random generators are those of `minigrid.envs.MemoryEnv`.

    ## Action Space
    `Discrete(num_actions)`: 0 turn left, 1 turn right, 2 forward; 3 to 6 (pickup, drop, toggle, done) do nothing here.

    ## Observation Space
    A Dict. `image` is `Box(0, 255, (V, V, 3))`, the object, colour and state of each cell in sight, or with `one_hot`
    `Box(0, 1, (V·V·20,))`. `direction` is `Discrete(4)`: right, down, left, up. MiniGrid's mission, which never
    changes, is left out.

    ## Rewards
    1 - 0.9 t / (5 `size`²) for reaching the cell beside the matching object at step t, else 0.

    `optimal_return` is the expected return, over starts and layouts, of the shortest way to see the room's object and
    one of those at the end, and to go to the match: shortest paths over states of knowledge (`World.plans`).

    A player without memory forgets the room's object in the hallway. If it cannot see this object from the junction
    (V = 3, or V = 7 from size 11 on), it succeeds by chance, and `memoryless_return` is half of the reward for walking
    straight to either side. If it can see it, it may look back from the junction. When it faces up again, it does not
    know whether it has looked, so it steps with the best probability p (`World.memoryless_return`). The tests find no
    better policy by gradient ascent over all policies from image and direction to probabilities of actions.

    ## Starting State
    The agent is anywhere in the row of the hallway and faces right. `options={"cue": 0}` sets a key in the room, 1 a
    ball.

    ## Episode End
    The episode terminates beside either object and is truncated after 5 `size`² steps. `info["is_success"]` says
    whether the object matched.

    ## Arguments
    - `size`: the width of the square, odd, at least 7; it sets the horizon.
    - `random_length`: whether the length of the hallway is drawn for each episode.
    - `agent_view_size`: V, the width of the view, odd, at least 3.
    - `encoding`: the encoding of the image, "symbolic" or "one_hot".
    - `num_actions`: the number of MiniGrid's seven actions, from the first 3 to all.

    ## Version History
    - v0: first version.
    """

    STATE: ClassVar[tuple[str, ...]] = ("place", "direction", "random")

    def __init__(
        self,
        *,
        size: int = 7,
        random_length: bool = False,
        agent_view_size: int = 3,
        encoding: str = "symbolic",
        num_actions: int = 7,
        **options: Unpack[BatchOptions],
    ) -> None:
        self.size = check_size("size", size, 7)
        view = check_size("agent_view_size", agent_view_size, 3)
        for name, value in {"size": size, "agent_view_size": view}.items():
            if value % 2 == 0:
                raise ValueError(f"{name} must be odd, not {value}")
        check_int("num_actions", num_actions, 3, 7)
        self.random_length = check_bool("random_length", random_length)
        self.encoding = check_choice("encoding", encoding, ENCODINGS)
        self.world = shared_world(size, self.random_length, view)
        image: Box[Any] = Categories(0, 255, (view, view, 3), np.uint8)
        if encoding == "one_hot":
            image = Box(0, 1, (view * view * sum(CHANNELS),), np.float32)
        super().__init__(
            observation_space=Dict({"image": image, "direction": Discrete(4)}),
            action_space=Discrete(num_actions),
            **options,
        )
        self.generators = [np.random.default_rng(0)] * self.num_envs  # each copy gets its own when it is seeded
        self.place = np.zeros(self.num_envs, np.int64)
        self.direction = np.zeros(self.num_envs, np.int64)
        self.horizon = 5 * size**2

    @cached_property
    def optimal_return(self) -> float:  # type: ignore[override]
        """The expected return of an optimal policy."""
        return 1 - 0.9 * self.world.optimal_steps / self.horizon

    @cached_property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """The expected return of the best policy that sees the current observation only."""
        return self.world.memoryless_return(0.9 / self.horizon)[0]

    @property
    def generator(self) -> np.random.Generator:
        """The generator that the single environment has as its `np_random`."""
        return self.generators[0]

    @property
    def random(self) -> npt.NDArray[np.uint64]:
        """The states of the generators, (n, 6)."""
        rows = []
        for generator in self.generators:
            state: Any = generator.bit_generator.state
            words = [state["state"][key] >> shift & 2**64 - 1 for key in ("state", "inc") for shift in (64, 0)]
            rows.append([*words, state["has_uint32"], state["uinteger"]])
        return np.array(rows, np.uint64)

    @random.setter
    def random(self, rows: npt.NDArray[np.uint64]) -> None:
        self.generators = []
        for row in rows.tolist():
            bits = np.random.PCG64()
            numbers: Any = {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]}
            bits.state = {"bit_generator": "PCG64", "state": numbers, "has_uint32": row[4], "uinteger": row[5]}
            self.generators.append(np.random.Generator(bits))

    def _seed(self, i: Copies, seeds: list[int | None]) -> None:
        super()._seed(i, seeds)
        for copy in i[self.episode[i] < 0].tolist():
            seed = seeds[copy]
            self.generators[copy] = seeding.np_random(int(self.seeds[copy]) if seed is None else seed)[0]

    def _begin(self, i: Copies) -> None:
        world = self.world
        for copy in i.tolist():
            draw = self.generators[copy].integers  # as `MemoryEnv._gen_grid` draws
            end = int(draw(4, self.size - 2)) if self.random_length else self.size - 3
            x = draw(1, end + 1)
            layout = 4 * (end - int(world.ends[0])) + 2 * draw(0, 2) + draw(0, 2)
            self.place[copy] = world.start[layout, x]
        self.direction[i] = EAST

    def _set_cue(self, i: Copies, cue: np.ndarray) -> None:
        layout = self.world.place_layout[self.place[i]]
        x = self.world.place_x[self.place[i]]
        self.place[i] = self.world.start[(layout & ~2) + 2 * check_symbols("cue", cue, 2), x]

    def _advance(self, actions: np.ndarray) -> StepResult:
        moved = self.world.forward[self.place, self.direction]
        self.place = np.where(actions == FORWARD, moved, self.place)
        self.direction = (self.direction + (actions == RIGHT) - (actions == LEFT)) % 4
        outcome = self.world.outcome[self.place]
        success = outcome == 1
        reward = np.where(success, 1 - 0.9 * ((self.t + 1) / self.horizon), 0.0)
        return reward, outcome != 0, self.t + 1 >= self.horizon, {"is_success": success}

    def _observe(self, i: Copies) -> Any:
        image: npt.NDArray[Any] = self.world.images[self.place[i], self.direction[i]]
        if self.encoding == "one_hot":
            image = one_hot_cells(image)
        return {"image": image, "direction": self.direction[i]}

    def observation_text(self, k: int) -> str:
        """Return the view of copy `k` as characters: the agent stands in the middle of the last row and looks up."""
        view = self.world.images[self.place[k], self.direction[k], ..., 0]
        facing = ("right", "down", "left", "up")[self.direction[k]]
        return f"facing {facing}\n" + "\n".join("".join(row) for row in CHARACTERS[view].T) + "\n"

    def memory_text(self, k: int) -> str:
        """Return the content of a perfect memory in copy `k`, as text."""
        return ("key", "ball")[self.world.place_layout[self.place[k]] // 2 % 2]

    def _picture(self, k: int) -> npt.NDArray[np.uint8]:
        world, place = self.world, self.place[k]
        colours = np.zeros((7, 3), np.uint8)
        colours[[WALL, KEY, BALL]] = (100, 100, 100), (255, 180, 40), (60, 110, 255)
        whole = colours[world.grids[world.place_layout[place]]].transpose(1, 0, 2)
        whole[world.place_y[place], world.place_x[place]] = (255, 40, 40)
        seen = colours[world.images[place, self.direction[k], ..., 0]].transpose(1, 0, 2)
        picture = np.zeros((max(len(whole), len(seen)), len(whole) + 1 + len(seen), 3), np.uint8)
        picture[: len(whole), : len(whole)] = whole
        picture[: len(seen), len(whole) + 1 :] = seen
        return picture


class MiniGridMemoryEnv(SingleEnv):
    """One copy of `MiniGridMemoryVectorEnv`."""

    vector_class = MiniGridMemoryVectorEnv
