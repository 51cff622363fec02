"""Export a trained agent to a file that runs without this package.

load(run) -> ExportedStep -> torch.export's program -> the file's bytes -> compared with `predict` -> written
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_map

from bistable_rl.agents.agent import Agent, load
from bistable_rl.agents.export_check import Compared, compare, observations
from bistable_rl.agents.export_formats import FORMATS, check_installed, named, quiet
from bistable_rl.agents.exported_step import ExportedStep
from bistable_rl.agents.ppo import RecurrentPPO
from bistable_rl.agents.saved_agent import agent_of, agent_of_file
from bistable_rl.agents.spaces import to_json
from bistable_rl.checks import check_choice
from bistable_rl.errors import UserError, user_errors
from bistable_rl.runs.files import inside, write_bytes
from bistable_rl.runs.files import named as followed
from bistable_rl.runs.run import Run

OWN_OPERATORS = ("aten", "prim", "prims")
"""The namespaces of torch's own operators."""


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        path: The file.
        size: Its bytes.
        about: The file's own description: version, cell, spaces, inputs, outputs, initial state.
        compared: The comparison with `predict`.
    """

    path: Path
    size: int
    about: dict[str, Any]
    compared: Compared


def export(
    run: Run | RecurrentPPO | str | os.PathLike[str], path: str | os.PathLike[str] | None = None, *,
    format: str = "onnx", best: bool = False,
) -> Exported:  # fmt: skip
    """Write one step of an agent to a file that runs on onnxruntime, or on torch alone.

    The file is compared with `Agent.predict` over 200 steps with resets before it is written. agents/EXPORT.md
    describes its content and its use.

    Args:
        run: The run or its folder, finished or stopped; a `RecurrentPPO`, or the file that its `save` wrote.
        path: The file (default: agent.onnx or agent.pt2 in the run folder; x.onnx or x.pt2 beside x.zip).
        format: "onnx" or "pt2".
        best: Export the weights with the best evaluation of a run instead of the latest ones.

    Raises:
        UserError: If there is no run or no checkpoint, the format or a package is missing, the file has the suffix of
            another format, the network uses operations that are not torch's own, the file differs from `predict`, or it
            cannot be written.
    """
    with user_errors("export", ValueError):
        kind = FORMATS[check_choice("format", format, FORMATS)]
    check_installed(format)
    if path is not None and Path(path).suffix.lower() != f".{format}":
        raise UserError(f"export: the name of the file must end in .{format}, not {Path(path).name}.")
    agent, target = _agent_and_file(run, path, format, best)
    of = "this RecurrentPPO" if isinstance(run, RecurrentPPO) else run
    step = exported_step(agent)
    about = describe(agent, step)
    with quiet():
        try:
            data = kind.pack(program_of(step), about)
            opened = kind.open(data)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # torch's exporters raise errors of any type for operations they cannot follow
            raise UserError(
                f"{of} cannot be exported: its {agent.policy.memory.cell} layers, its activation or its "
                f"{type(agent.policy.features_extractor).__name__} is not made of torch's operations alone, or "
                f"branches on values ({type(error).__name__}: {_first_line(error)})."
            ) from error
    compared = compare(agent, step, opened)
    write_bytes(target, data)
    return Exported(target, len(data), about, compared)


def _agent_and_file(
    run: Run | RecurrentPPO | str | os.PathLike[str], path: str | os.PathLike[str] | None, format: str, best: bool
) -> tuple[Agent, Path]:
    """Return the agent, and the file to write."""
    target = None if path is None else followed(Path(path))
    file = Path(run) if isinstance(run, str | os.PathLike) else None
    is_saved = file is not None and file.suffix == ".zip" and not file.is_dir()
    if best and (is_saved or isinstance(run, RecurrentPPO)):
        raise UserError("export: best is for a run, which keeps its best checkpoint.")
    if isinstance(run, RecurrentPPO):
        if target is None:
            raise UserError(
                f"export: a RecurrentPPO has no run folder; name the file to write, such as agent.{format}."
            )
        return agent_of(run, target.stem), target
    if file is not None and is_saved:
        return agent_of_file(file), target or followed(file.with_suffix(f".{format}"))
    opened = Run.open(run)
    return load(opened, best=best), target or inside(opened.folder, f"agent.{format}")


def exported_step(agent: Agent) -> ExportedStep:
    """Return the step of an agent; its weights require no gradients from then on."""
    return ExportedStep(agent.policy, agent.observation_space, agent.masked).eval().requires_grad_(False)


def program_of(step: ExportedStep) -> ExportedProgram:
    """Return a step as torch.export's program, for any number of copies.

    Raises:
        UserError: If it calls an operator that is not torch's own.
        Exception: Whatever torch.export raises if it cannot follow a module.
    """
    n = Dim("n", min=1)
    observation, state, *mask = example(step)
    dynamic = {"observation": tree_map(lambda _: {0: n}, observation), "state": {1: n}}
    if mask:
        dynamic["action_mask"] = {0: n}
    with torch.no_grad():
        program = torch.export.export(step, (observation, state, *mask), dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        space = getattr(node.target, "namespace", "aten") if node.op == "call_function" else "aten"
        if space not in OWN_OPERATORS:
            raise UserError(
                f"the step of {step.actor.memory.cell} cannot be exported: it calls the operator {node.target}, which "
                "runs only where its package is; its `step` must use torch's operations only."
            )
    return program


def example(step: ExportedStep, n: int = 3) -> tuple[Any, ...]:
    """Return an observation and the state of n copies, and their action masks if the environment has them."""
    seen = observations(step.space, n, np.random.default_rng(0), {})
    masks = () if step.mask_size is None else (torch.ones(n, step.mask_size, dtype=torch.bool),)
    return tree_map(torch.from_numpy, seen), step.initial_state.repeat(1, n, 1), *masks


def describe(agent: Agent, step: ExportedStep) -> dict[str, Any]:
    """Return a file's description of itself, as plain values."""
    observation, *others = example(step)
    inputs = {**named(observation), **dict(zip(["state", "action_mask"], others, strict=False))}
    with torch.no_grad():
        outputs = dict(zip(["action", "next_state", *step.parameter_names], step(observation, *others), strict=True))
    return {
        "version": version("bistable-rl"),
        "name": agent.experiment.name,
        "env": agent.experiment.env.id or None,  # a file of `RecurrentPPO.save` does not say it
        "steps": agent.steps,
        "cell": agent.policy.memory.cell,
        "observation_space": to_json(agent.observation_space),
        "action_space": to_json(agent.policy.action_space),
        "inputs": [_described(name, value) for name, value in inputs.items()],
        "outputs": [_described(name, value) for name, value in outputs.items()],
        "initial_state": step.initial_state.tolist(),
    }


def _described(name: str, value: Tensor) -> dict[str, Any]:
    """Return the name, type and shape of an input or output; n copies lie along the second axis of a state."""
    shape: list[int | str] = list(value.shape)
    shape[1 if name in ("state", "next_state") else 0] = "n"
    return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape}


def _first_line(error: Exception) -> str:
    """Return the first line of an error of torch; the other lines are for torch's developers."""
    return str(error).strip().partition("\n")[0][:200]
