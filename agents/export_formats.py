"""The files that an exported step is written to, as bytes: ONNX for onnxruntime, and torch's pt2 for torch alone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from bistable_rl.errors import UserError

Run = Callable[..., list[np.ndarray]]
"""A step of an opened file: (observation, state), or (observation, state, action mask) -> its outputs, in arrays."""

ABOUT = "about.json"
"""The name of the JSON in a pt2 file."""


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        pack: Returns the file, from a program and JSON values about it; their `inputs` and `outputs` give the names.
        open: Opens a file that `pack` returned.
        packages: The packages that are needed besides torch.
    """

    pack: Callable[[ExportedProgram, Mapping[str, Any]], bytes]
    open: Callable[[bytes], Run]
    packages: tuple[str, ...]


def named(observation: Any, name: str = "observation") -> dict[str, Any]:
    """Return the parts of an observation by the names of their inputs: `observation`, `observation.image`, ..."""
    if isinstance(observation, dict | tuple):
        parts: Any = observation.items() if isinstance(observation, dict) else enumerate(observation)
        return {leaf: part for key, inner in parts for leaf, part in named(inner, f"{name}.{key}").items()}
    return {name: observation}


def check_installed(name: str) -> None:
    """Check that the packages of a format are there, before long work starts.

    Raises:
        UserError: If one is missing.
    """
    for package in FORMATS[name].packages:
        try:
            __import__(package)
        except ImportError:
            raise UserError(
                f"--format {name} needs {package}: install it with pip install 'bistable-rl[export]'."
            ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages of torch's exporters: missing packages, their own deprecations, failed graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _to_onnx(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    inputs, outputs = ([value["name"] for value in about[kind]] for kind in ("inputs", "outputs"))
    made = torch.onnx.export(program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    assert made is not None
    model = made.model_proto
    del model.metadata_props[:]  # the exporter's notes, such as paths of files on this machine
    del model.graph.value_info[:]
    for held in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del held.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "n"
    model.producer_name, model.producer_version = "bistable-rl", about["version"]
    for key, plain in about.items():
        model.metadata_props.add(key=key, value=plain if isinstance(plain, str) else json.dumps(plain))
    return bytes(model.SerializeToString())


def _open_onnx(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(observation: Any, *others: np.ndarray) -> list[np.ndarray]:
        inputs = dict(zip(["state", "action_mask"], others, strict=False))
        outputs: list[np.ndarray] = session.run(None, {**named(observation), **inputs})
        return outputs

    return run


def _to_pt2(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of files on this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def _open_pt2(data: bytes) -> Run:
    step = torch.export.load(io.BytesIO(data)).module()

    def run(observation: Any, *others: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = step(_tensors(observation), *map(torch.from_numpy, others))
        return [output.numpy() for output in outputs]

    return run


def _tensors(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _tensors(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(map(_tensors, observation))
    return torch.from_numpy(observation)


FORMATS: dict[str, Format] = {
    "onnx": Format(_to_onnx, _open_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "pt2": Format(_to_pt2, _open_pt2, ()),
}
"""The formats, by name; a file's suffix is the name."""
