"""CUDA graphs for repeated work of the same shapes: the host starts a graph once, however many launches it contains.

A graph reads and writes its own tensors, so inputs are copied to them and results are copied back. Work of new shapes
runs directly, because it may never be repeated; the second time it is captured.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor | None]
_MOST = 8  # graphs kept: those used last

_graphs: OrderedDict[Hashable, "_Graph | None"] = OrderedDict()  # None: seen once
_lock = Lock()  # two threads must not fill the same graph's tensors


def usable(tensors: Tensors) -> bool:
    """Return whether work on these tensors can be captured: they are on CUDA, and no other capture is running."""
    return all(t is None or t.is_cuda for t in tensors.values()) and not torch.cuda.is_current_stream_capturing()


def run(
    function: Callable[..., None], fixed: tuple[Hashable, ...], *, read: Tensors, changed: Tensors, written: Tensors
) -> None:
    """Call `function(*fixed, **read, **changed, **written)`, as a graph from the second time on.

    Args:
        function: Launches work on its tensors, and does nothing else.
        fixed: Its other arguments.
        read: The tensors that it reads.
        changed: The tensors that it reads and writes.
        written: The tensors that it only writes, every entry of them.
    """
    tensors = {**read, **changed, **written}
    shapes = tuple((name, None if t is None else (t.shape, t.dtype, t.device)) for name, t in tensors.items())
    key = (function, fixed, shapes, torch.get_float32_matmul_precision(), _stream())
    with _lock:
        known = key in _graphs
        graph = _graphs.pop(key, None)
        if known and graph is None:
            graph = _Graph(function, fixed, tensors)
        _graphs[key] = graph
        if len(_graphs) > _MOST:
            _graphs.popitem(last=False)
        if graph is not None:
            graph.run({**read, **changed}, {**changed, **written})
    if graph is None:
        function(*fixed, **tensors)


class _Graph:
    """A captured call, and the tensors that it reads and writes."""

    def __init__(self, function: Callable[..., None], fixed: tuple[Hashable, ...], like: Tensors) -> None:
        with torch.inference_mode(mode=False):
            self._own = {
                name: None if t is None else torch.zeros(t.shape, dtype=t.dtype, device=t.device)
                for name, t in like.items()
            }
            self._replay = _capture(lambda: function(*fixed, **self._own))

    def run(self, inputs: Tensors, results: Tensors) -> None:
        """Run it from these inputs into these results."""
        _copy(inputs, self._own)
        self._replay()
        _copy(self._own, results)


def _copy(source: Tensors, target: Tensors) -> None:
    for name in source.keys() & target.keys():
        tensor, into = source[name], target[name]
        if tensor is not None and into is not None:
            into.copy_(tensor)


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def _capture(work: Callable[[], None]) -> Callable[[], Any]:
    """Capture the launches of `work`; returns what replays them on the current stream."""
    side, current = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        work()  # kernels are compiled and loaded, and cuBLAS is set up, outside of the capture
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        work()
    return graph.replay
