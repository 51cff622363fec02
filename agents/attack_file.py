"""The sequences that an adversary found, as a small JSON file that `bistable-rl play --sequence` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bistable_rl.agents.adversary import Attack
from bistable_rl.checks import check_int
from bistable_rl.errors import UserError
from bistable_rl.runs.files import read_json

LONGEST_PATTERN = 32
MOST_DISTRACTORS = 10**7


@dataclass(frozen=True)
class Found:
    """A cue, and distractors that made an agent forget it.

    Attributes:
        env_id: The environment.
        seed: The seed of the episode.
        steps: The number of steps of distraction.
        options: The options of `reset`: the cue and the distractors.
    """

    env_id: str
    seed: int
    steps: int
    options: dict[str, Any]


def attack_json(attack: Attack) -> dict[str, Any]:
    """Return an attack as plain values: one row per cue with the result of each search, None where the cue survived.

    A sequence is a list of patterns, each with the number of times that it is shown.
    """
    rows = []
    for k, cue in enumerate(attack.cues.tolist()):
        searches: dict[str, Any] = dict.fromkeys(attack.searches)
        for name, kills in attack.searches.items():
            kill = kills[k]
            if kill is not None:
                searches[name] = {"steps": kill.steps, "seed": kill.seed, "sequence": patterns(kill.sequence.tolist())}
        worst = attack.worst[k]
        rows.append({"cue": cue, "killed_by": None if worst is None else worst[0], "searches": searches})
    survive = {"survive": attack.survivors(), "of": len(rows)}
    return {"first": attack.first, "most": attack.steps, "upper_bound": survive, "cues": rows}


def read_found(path: Path, cue: int | None) -> Found:
    """Return the sequence that killed a cue in the fewest steps.

    Args:
        path: A file of `evaluate --adversary --json`.
        cue: The number of the cue, from 0; None for the first killed cue.

    Raises:
        UserError: If there is no such file, it is a file of another kind, or the cue is not in it or survived.
    """
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise UserError(f"play: there is no file {path}.") from None
    try:
        env_id, rows = data["env"]["id"], data["adversary"]["cues"]
        killed = [k for k, row in enumerate(rows) if row["killed_by"] is not None]
        if cue is not None and cue >= len(rows):
            raise UserError(f"play: {path} holds the cues 0 to {len(rows) - 1}, not {cue}.")
        if not killed or (cue is not None and cue not in killed):
            which = "every cue" if cue is None or not killed else f"cue {cue}"
            raise UserError(f"play: {which} survived in {path}, so there is no sequence to show.")
        row = rows[killed[0] if cue is None else cue]
        kill = row["searches"][row["killed_by"]]
        times, seed = [times for _, times in kill["sequence"]], check_int("seed", kill["seed"], 0)
        shown = sum(len(pattern) * times for pattern, times in kill["sequence"])
        if min(times) < 1 or shown > MOST_DISTRACTORS or shown != kill["steps"] + 1:
            raise ValueError
        sequence = [item for pattern, times in kill["sequence"] for item in pattern * times]
        options = {"cue": np.asarray(row["cue"]), "distractors": np.asarray(sequence)}
        return Found(str(env_id), seed, int(kill["steps"]), options)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"play: {path} is not a file that `bistable-rl evaluate --adversary --json` wrote.") from None


def patterns(sequence: Sequence[Any]) -> list[list[Any]]:
    """Return a sequence as [pattern, times] pairs: at each place a pattern whose repeats cover most, or one entry."""
    pairs: list[list[Any]] = []
    at = 0
    while at < len(sequence):
        longest, times = 1, 1
        for length in range(1, min(LONGEST_PATTERN, len(sequence) - at) + 1):
            again = at + length
            while again < len(sequence) and sequence[again] == sequence[again - length]:
                again += 1
            count = (again - at) // length
            if count > 1 and count * length > longest * times:
                longest, times = length, count
        pairs.append([list(sequence[at : at + longest]), times])
        at += longest * times
    return pairs
