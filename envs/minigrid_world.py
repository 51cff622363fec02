"""The states of MiniGrid's memory task as a table: the next place of a step, the view there, and the best returns."""

from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

EAST, SOUTH, WEST, NORTH = range(4)  # the agent faces right, down, left, up
EMPTY, WALL, KEY, BALL = 1, 2, 5, 6  # MiniGrid's numbers of objects
GREY, GREEN = 5, 1  # MiniGrid's numbers of colours
STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # a step forward, by direction


class World:
    """All states of the task for one size and view.

    Only the agent changes in MiniGrid's memory task: `pickup` becomes `toggle` there, which does not affect a key or a
    ball. So a state is a place, which is a cell of a layout, and a direction. The number of a layout is
    v = 4 · (hallway's end - first end) + 2 · cue + order. Cue 0 is a key; with order 0 the ball is up.

    Args:
        size: The width of the square, odd, at least 7.
        random_length: Whether the layouts have hallways of all lengths.
        view: V, the width of the agent's view.

    Attributes:
        forward: (places, 4), the place that a step forward leads to.
        images: (places, 4, V, V, 3), the agent's view.
        outcome: (places,), 1 where the episode succeeds, -1 where it fails, else 0.
        start: (layouts, size), the place in the row of the hallway at each x, or -1.
        place_layout, place_x, place_y: (places,), the layout and the cell of a place.
        sees_cue, sees_end: (places, 4), whether the cue, or an object at the end, is in sight.
        grids: (layouts, size, size), the objects in the cells.
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
        """Return the objects of a layout, as `MemoryEnv._gen_grid` places them."""
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
        """Return the cells that can be reached, (layouts, size, size); the two that end an episode are dead ends."""
        free = self.grids == EMPTY
        reached = np.zeros_like(free)
        reached[:, 1, self.middle] = True
        while True:
            wider = reached.copy()
            for axis in (1, 2):
                for shift in (1, -1):
                    wider |= np.roll(reached, shift, axis)  # the outer walls stop what wraps around
            wider &= free
            if (wider == reached).all():
                return reached
            reached = wider

    def _look(self) -> None:
        """Compute the views: `MiniGridEnv.gen_obs_grid` and `Grid.process_vis` for all places at once."""
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
            # Sight spreads along the row and to the row ahead, straight and diagonally, until a wall stops it.
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
        """The fewest expected steps to success, (places, 4), by knowledge: both, the cue, the end's objects, neither.

        Cue and order are uniform and independent, and the view depends on the places of the objects, not on their
        kinds. So for a player who learns the second of the two, the goal is up or down with probability 1/2.
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
        """The expected steps of the fastest policy that always succeeds."""
        knows_none = self.plans[-1]
        starts = [knows_none[self.start[4 * k, 1 : end + 1], EAST].mean() for k, end in enumerate(self.ends)]
        return float(np.mean(starts))

    def _fewest_steps(self, stop: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the minimum over reachable states of the steps to it plus its `stop`; both are (places, 4)."""
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
        """Return the return of the best player without memory, and the probability p of its guess.

        The player walks to the junction and faces up. There it steps up with probability p, as a guess; otherwise it
        looks back. If it then sees the cue and the goal is down, it turns down and steps. If it sees the cue and the
        goal is up, it turns up, and there it again steps with probability p or looks back. If it does not see the cue,
        it goes down.

        Args:
            cost: The part of the reward that a step costs.
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
def shared_world(size: int, random_length: bool, view: int) -> World:
    """Return a world that environments share and must not change."""
    return World(size, random_length, view)
