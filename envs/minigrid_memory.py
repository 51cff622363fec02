"""MiniGridMemory: MiniGrid's memory task, as a table."""

from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import seeding
from typing_extensions import Unpack

from bistable_rl.checks import check_bool, check_choice, check_int, check_size, check_symbols
from bistable_rl.envs.base import BatchedEnv, BatchOptions, Copies, StepResult
from bistable_rl.envs.single_env import SingleEnv
from bistable_rl.envs.wrappers import CHANNELS, ENCODINGS, Categories, one_hot_cells

LEFT, RIGHT, FORWARD = range(3)
EAST, SOUTH, WEST, NORTH = range(4)  # facing right, down, left, up
EMPTY, WALL, KEY, BALL = 1, 2, 5, 6  # MiniGrid's numbers for what a cell holds
GREY, GREEN = 5, 1  # and for its colours
DRAWN = np.array(list("? #..kb"))  # how they are drawn in text, 0 unseen
STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # a step forward, facing right, down, left, up


class World:
    """Everything that can happen for one size and view: where a step leads and what is seen there.

    Nothing in MiniGrid's memory task changes but the agent (`pickup` is made `toggle` there, which does nothing to a
    key or a ball), so a place, one cell of one layout, and a direction say all. Layout number
    v = 4 · (hallway's end - first end) + 2 · cue + order: cue 0 is a key; with order 0 the ball is up.

    Attributes:
        forward: (places, 4) the place a step forward leads to.
        images: (places, 4, V, V, 3) what is seen.
        outcome: (places,) 1 where the episode succeeds, -1 where it fails, else 0.
        start: (layouts, size) the place in the hallway's row at each x, -1 where there is none.
        place_layout, place_x, place_y: (places,) which layout's which cell a place is.
        sees_cue, sees_end: (places, 4) whether the cue, or an object at the end, is in sight.
        grids: (layouts, size, size) what the cells hold.
    """

    def __init__(self, size: int, random_length: bool, view: int) -> None:
        self.size, self.view, self.middle = size, view, size // 2
        self.ends = np.arange(4, size - 2) if random_length else np.array([size - 3])
        self.grids = np.stack([self._grid(end, v) for end in self.ends for v in range(4)])
        self.place_layout, self.place_x, self.place_y = np.nonzero(self._reachable())
        places = np.arange(len(self.place_layout))
        number = np.full(self.grids.shape, -1)
        number[self.place_layout, self.place_x, self.place_y] = places
        self.start = number[:, :, self.middle]
        ahead = np.stack([self.place_x, self.place_y], 1)[:, None] + STEP  # (places, 4, 2)
        self.forward = number[self.place_layout[:, None], ahead[..., 0], ahead[..., 1]]
        self.forward = np.where(self.forward < 0, places[:, None], self.forward)
        end = self.ends[self.place_layout // 4]
        up, down = self.place_y == self.middle - 1, self.place_y == self.middle + 1
        matches_up = (self.place_layout // 2 + self.place_layout) % 2 == 1  # cue = key and order = key up, or neither
        self.outcome = np.where(matches_up, 1, -1) * (up.astype(int) - down) * (self.place_x == end + 1)
        self._look()

    def _grid(self, end: int, layout: int) -> npt.NDArray[np.uint8]:
        """Return what the cells hold, as `MemoryEnv._gen_grid` sets them."""
        size, middle = self.size, self.middle
        grid = np.full((size, size), EMPTY, np.uint8)
        grid[[0, -1]] = grid[:, [0, -1]] = WALL
        grid[1:5, [middle - 2, middle + 2]] = WALL  # the room
        grid[4:end, [middle - 1, middle + 1]] = WALL  # the hallway
        grid[4, [middle - 1, middle + 1]] = WALL
        grid[end, np.arange(size) != middle] = WALL
        grid[end + 2] = WALL
        cue, order = divmod(layout, 2)
        grid[1, middle - 1] = (KEY, BALL)[cue]
        grid[end + 1, middle - 2], grid[end + 1, middle + 2] = ((BALL, KEY), (KEY, BALL))[order]
        return grid

    def _reachable(self) -> npt.NDArray[np.bool_]:
        """Return (layouts, size, size) the cells that can be reached; the two that end an episode are dead ends."""
        free = self.grids == EMPTY
        reached = np.zeros_like(free)
        reached[:, 1, self.middle] = True
        while True:
            wider = reached.copy()
            for axis in (1, 2):
                for shift in (1, -1):
                    wider |= np.roll(reached, shift, axis)  # the walls around keep it from coming in again
            wider &= free
            if (wider == reached).all():
                return reached
            reached = wider

    def _look(self) -> None:
        """Fill in what is seen: `MiniGridEnv.gen_obs_grid` and `Grid.process_vis`, for all places at once."""
        size, view, middle = self.size, self.view, self.middle
        ahead = STEP[None, :, None, None]  # (1, 4, 1, 1, 2)
        aside = np.roll(STEP, -1, axis=0)[None, :, None, None]  # to the right
        i = np.arange(view)[:, None, None] - view // 2
        j = view - 1 - np.arange(view)[None, :, None]
        here = np.stack([self.place_x, self.place_y], 1)[:, None, None, None]
        cells = here + j * ahead + i * aside  # (places, 4, V, V, 2)
        inside = ((cells >= 0) & (cells < size)).all(-1)
        x, y = np.moveaxis(np.clip(cells, 0, size - 1), -1, 0)
        layout = self.place_layout[:, None, None, None]
        held = np.where(inside, self.grids[layout, x, y], WALL)

        seen = np.zeros(held.shape, np.bool_)
        seen[..., view // 2, view - 1] = True
        for row in reversed(range(view)):
            # Light goes sideways along the row and one row ahead, straight and diagonally, until a wall stops it.
            for columns, step in ((range(view - 1), 1), (range(view - 1, 0, -1), -1)):
                for column in columns:
                    through = seen[..., column, row] & (held[..., column, row] != WALL)
                    seen[..., column + step, row] |= through
                    if row > 0:
                        seen[..., column + step, row - 1] |= through
                        seen[..., column, row - 1] |= through

        colour = np.select([held == WALL, held == EMPTY], [GREY, 0], GREEN)
        self.images = (np.stack([held, colour, np.zeros_like(held)], -1) * seen[..., None]).astype(np.uint8)
        end = self.ends[layout // 4]
        thing = seen & ((held == KEY) | (held == BALL))
        self.sees_cue = (thing & (x == 1) & (y == middle - 1)).any((-2, -1))
        self.sees_end = (thing & (x == end + 1)).any((-2, -1))

    @cached_property
    def plans(self) -> tuple[npt.NDArray[np.float64], ...]:
        """The fewest expected steps to success, (places, 4), for who knows both, the cue, the end's objects, neither.

        Cue and order are fair and independent, and only where things are, not which, decides what can be seen. So to
        who learns the second of the two, the goal is up or down with probability 1/2.
        """
        knows_both = self._fewest_steps(np.where((self.outcome == 1)[:, None], [0.0] * 4, np.inf))
        learns_both = np.empty_like(knows_both)
        for end in range(len(self.ends)):
            layouts = self.place_layout // 4 == end  # the same cells four times over
            learns_both[layouts] = np.tile(knows_both[layouts].reshape(4, -1, 4).mean(0), (4, 1))
        knows_cue = self._fewest_steps(np.where(self.sees_end, learns_both, np.inf))
        knows_end = self._fewest_steps(np.where(self.sees_cue, learns_both, np.inf))
        learns_one = np.where(self.sees_cue, knows_cue, np.where(self.sees_end, knows_end, np.inf))
        knows_none = self._fewest_steps(np.where(self.sees_cue & self.sees_end, learns_both, learns_one))
        return knows_both, knows_cue, knows_end, knows_none

    @cached_property
    def optimal_steps(self) -> float:
        """Expected steps of the quickest player who is sure to succeed."""
        knows_none = self.plans[-1]
        starts = [knows_none[self.start[4 * k, 1 : end + 1], EAST].mean() for k, end in enumerate(self.ends)]
        return float(np.mean(starts))

    def _fewest_steps(self, stop: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the least, over what can be reached, of the steps there plus `stop`; both (places, 4)."""
        least = stop
        while True:
            turned = np.minimum(np.roll(least, 1, axis=1), np.roll(least, -1, axis=1))
            moved = 1 + np.minimum(turned, np.take_along_axis(least, self.forward, axis=0))
            moved[self.outcome != 0] = np.inf  # the episode is over
            less = np.minimum(stop, moved)
            if np.array_equal(less, least):
                return least
            least = less

    def memoryless_return(self, cost: float) -> tuple[float, float]:
        """Return what the best player without memory gets, and with which probability it goes up unasked.

        Args:
            cost: What a step costs of the reward for success.

        The player walks to the junction and faces up. A step up there (probability p) is a guess. Otherwise it looks
        back. Where the cue is in sight from there, it turns down if the goal is down, and steps; up if it is up, but
        facing up it must again step with probability p, or look back once more. Where the cue isn't, it goes down.
        """
        p = np.linspace(0.001, 1, 1000)
        value = np.zeros_like(p)
        for k, end in enumerate(self.ends):
            junction = self.start[4 * k, end + 1]
            steps = end + 1 - np.arange(1, end + 1).mean() + 2
            down = 1 - cost * (steps + 2)
            told = (down + 1 - cost * (steps + 2 / p)) / 2 if self.sees_cue[junction, WEST] else down / 2
            value += (p * (1 - cost * steps) / 2 + (1 - p) * told) / len(self.ends)
        return float(value.max()), float(p[value.argmax()])


@lru_cache(maxsize=8)
def _world(size: int, random_length: bool, view: int) -> World:
    """Return a world; copies and environments share it, and nobody writes to it."""
    return World(size, random_length, view)


class MiniGridMemoryVectorEnv(BatchedEnv):
    """MiniGrid's memory task, many times as fast and step for step the same.

    The agent starts in a hallway that leads from a room on the left, with a key or a ball in it, to a junction on the
    right, with a key one way and a ball the other. It must go to the one that is in the room. The task asks for more
    than keeping a cue: the agent may have to go and look first.

    The task is `MiniGrid-Memory` of Chevalier-Boisvert et al. (2023), "Minigrid & Miniworld: Modular & Customizable
    Reinforcement Learning Environments for Goal-Oriented Tasks", NeurIPS. With the same seed and actions the image, the
    direction, the rewards, the ends of the episodes and the random generators are those of `minigrid.envs.MemoryEnv`.

    ## Action Space
    `Discrete(num_actions)`: 0 turn left, 1 turn right, 2 forward; 3 to 6 (pickup, drop, toggle, done) do nothing here.

    ## Observation Space
    A Dict: `image`, `Box(0, 255, (V, V, 3))`, object, colour and state of each cell in sight, or with `one_hot`
    `Box(0, 1, (V·V·20,))`; `direction`, `Discrete(4)`: right, down, left, up. The mission, always the same, is left
    out.

    ## Rewards
    1 - 0.9 t / (5 `size`²) for reaching the cell beside the matching object at step t, else 0.

    `optimal_return` is that of the quickest way to see the room's object and one of those at the end, and to go to
    the match, in expectation over the starts and layouts: shortest paths over what is known (`World.plans`).

    Without memory, what was seen in the room is lost in the hallway, where everybody faces right. Where the room's
    object can't be seen from the junction (V = 3, or V = 7 from size 11 on), success is a matter of chance, and
    `memoryless_return` is half of the reward for walking straight to either side. Where it can, a player without
    memory can look back from the junction, but, facing up again, doesn't know whether it has; so it must step with a
    probability p, the best of which decides (`World.memoryless_return`). The tests find no better policy by gradient
    ascent over all that map image and direction to probabilities of actions.

    ## Starting State
    Anywhere in the hallway's row, facing right. `options={"cue": 0}` forces a key in the room, 1 a ball.

    ## Episode End
    Terminates beside either object; truncates after 5 `size`² steps. `info["is_success"]` says whether it matched.

    ## Arguments
    - `size`: of the square, odd, at least 7; it sets the horizon.
    - `random_length`: whether the hallway's length is drawn for each episode.
    - `agent_view_size`: V, odd, at least 3.
    - `encoding`: "symbolic" or "one_hot".
    - `num_actions`: how many of MiniGrid's seven actions there are, at least the first 3.

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
        self.world = _world(size, self.random_length, view)
        image: Box[Any] = Categories(0, 255, (view, view, 3), np.uint8)
        if encoding == "one_hot":
            image = Box(0, 1, (view * view * sum(CHANNELS),), np.float32)
        super().__init__(
            observation_space=Dict({"image": image, "direction": Discrete(4)}),
            action_space=Discrete(num_actions),
            **options,
        )
        self.generators = [np.random.default_rng(0)] * self.num_envs  # each copy's own, when it has been seeded
        self.place = np.zeros(self.num_envs, np.int64)
        self.direction = np.zeros(self.num_envs, np.int64)
        self.horizon = 5 * size**2

    @cached_property
    def optimal_return(self) -> float:  # type: ignore[override]
        """Expected return of an optimal player."""
        return 1 - 0.9 * self.world.optimal_steps / self.horizon

    @cached_property
    def memoryless_return(self) -> float:  # type: ignore[override]
        """Expected return of the best player without memory."""
        return self.world.memoryless_return(0.9 / self.horizon)[0]

    @property
    def generator(self) -> np.random.Generator:
        """The random generator that is `np_random` in the single environment."""
        return self.generators[0]

    @property
    def random(self) -> npt.NDArray[np.uint64]:
        """The states of the copies' generators, (n, 6)."""
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
        """Return what the player of copy `i` sees, in words: the view, the player below its middle, looking up."""
        view = self.world.images[self.place[k], self.direction[k], ..., 0]
        facing = ("right", "down", "left", "up")[self.direction[k]]
        return f"facing {facing}\n" + "\n".join("".join(row) for row in DRAWN[view].T) + "\n"

    def memory_text(self, k: int) -> str:
        """Return in words what the player of copy `k` must remember."""
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
