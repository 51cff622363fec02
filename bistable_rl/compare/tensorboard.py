"""TensorBoard for a whole comparison: hyperparameters against final metrics, the report's figures, a layout of charts.

TensorBoard names a grid's runs `<variant>/seed<k>`, so that it overlays cells and groups seeds. Each training writes
its own curves. This module adds event files `*.compare`, rewritten with every report: one in each run folder, and one
in the folder `report`.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from bistable_rl.compare.comparison import VARIANT
from bistable_rl.compare.jobs import Job
from bistable_rl.compare.ledger import Row
from bistable_rl.errors import UserError
from bistable_rl.runs.schema import Experiment

SUFFIX = ".compare"
REPORT = "report"
COSTS = ("seconds", "memory_mb")
"""Facts that are shown with the final metrics."""


def write_tensorboard(
    folder: Path, name: str, jobs: Sequence[Job], rows: Sequence[Row], figures: Sequence[Path]
) -> None:
    """Write TensorBoard's events of a comparison.

    Args:
        folder: The comparison's folder, TensorBoard's `--logdir`.
        name: The comparison's name.
        jobs: The jobs of the rows. The curves of those whose run folder is gone are written too.
        rows: The row of each.
        figures: PNG files to show.

    Raises:
        UserError: If a file cannot be written.
    """
    chosen = _columns([_hyperparameters(job) for job in jobs])
    for job, row, values in zip(jobs, rows, chosen, strict=True):
        curves = any(file.suffix != SUFFIX for file in job.folder.glob("*tfevents*"))
        _write(job.folder, _run_events(row, values, str(job.folder.relative_to(folder)), curves_are_there=curves))
    metrics = dict.fromkeys(f"final/{metric}" for row in rows for metric in _final(row))
    tags = sorted({f"eval/{metric}" for row in rows for point in row.curve for metric in _evaluation(point)})
    experiment = hparams.hparams_config_pb(
        hparams=[
            hparams.HParam(key, hparams.Discrete(sorted({values[key] for values in chosen}))) for key in chosen[0]
        ],
        metrics=[hparams.Metric(tag, display_name=tag.removeprefix("final/")) for tag in metrics],
    )
    layout = _layout(name, [*tags, "train/loss"])
    pictures = [_picture(file) for file in figures]
    _write(
        folder / REPORT, [Event(wall_time=time.time(), summary=summary) for summary in (experiment, layout, *pictures)]
    )


def _hyperparameters(job: Job) -> dict[str, Any]:
    """Return the keys that distinguish runs: label, cell, seed, sizes, and the keys of the grid."""
    config = job.config
    network = config.policy if isinstance(config, Experiment) else config.network
    sizes = {"hidden_size": network.hidden_size, "num_layers": network.num_layers}
    keys = {key: value for key, value in job.keys.items() if key != VARIANT}
    return {"variant": job.label, "cell": config.cell, "seed": config.seed, **sizes, **keys}


def _columns(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, float | str]]:
    """Return the hyperparameters of all runs with one type per key: numbers, or else text."""
    numbers = {key for key in runs[0] if all(type(run[key]) is not bool and isinstance(run[key], Real) for run in runs)}
    return [{key: float(value) if key in numbers else str(value) for key, value in run.items()} for run in runs]


def _final(row: Row) -> dict[str, float]:
    costs = {name: row.number(name) for name in COSTS if row.facts.get(name)}
    return dict(row.final) | costs


def _evaluation(point: Mapping[str, float]) -> dict[str, float]:
    return {metric: value for metric, value in point.items() if metric not in ("steps", "seconds", "train_loss")}


def _run_events(row: Row, values: Mapping[str, float | str], run: str, *, curves_are_there: bool) -> list[Event]:
    events = [Event(wall_time=time.time(), summary=hparams.hparams_pb(dict(values), trial_id=run))]
    end = int(row.number("steps"))
    events += [_scalar(f"final/{metric}", value, end) for metric, value in _final(row).items()]
    if not curves_are_there:
        for point in row.curve:
            step = int(point["steps"])
            events += [_scalar(f"eval/{metric}", value, step) for metric, value in _evaluation(point).items()]
    return events


def _scalar(tag: str, value: float, step: int) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def _layout(title: str, tags: Sequence[str]) -> Summary:
    """Return TensorBoard's layout of custom scalars: one chart per tag, with every run."""
    charts = [
        layout_pb2.Chart(title=tag, multiline=layout_pb2.MultilineChartContent(tag=[f"^{re.escape(tag)}$"]))
        for tag in tags
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title=title, chart=charts)])
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME))
    tensor = TensorProto(dtype="DT_STRING", string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=plugin)])


def _picture(file: Path) -> Summary:
    data = file.read_bytes()
    width, height = Image.open(io.BytesIO(data)).size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag=f"{REPORT}/{file.stem}", image=image)])


def _write(folder: Path, events: Sequence[Event]) -> None:
    """Replace the events of an earlier report in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(f"*tfevents*{SUFFIX}"):
            earlier.unlink()
        writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)
        for event in events:
            writer.add_event(event)
        writer.close()
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
