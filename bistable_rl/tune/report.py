"""The results of a study, read from its storage alone: trials.csv, best.yaml, report.md, report.html and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from bistable_rl.compare import document
from bistable_rl.compare.document import Block, Heading, Image, Paragraph, Table
from bistable_rl.compare.figures import METRIC_LABELS
from bistable_rl.figure_style import OTHER_COLOUR, cell_colour, drawing, plain
from bistable_rl.runs.config import to_yaml
from bistable_rl.runs.files import write_text
from bistable_rl.runs.tables import short, write_csv
from bistable_rl.tune.space import draw
from bistable_rl.tune.storage import counted
from bistable_rl.tune.trials import SECONDS, VALUES, WHY
from bistable_rl.tune.tuning import Plan

TRIALS, BEST, REPORT, PAGE = "trials.csv", "best.yaml", "report.md", "report.html"
HISTORY, IMPORTANCE = "history.png", "importance.png"
MIN_TRIALS = 10
"""The least number of finished trials from which the importance of a key is estimated."""
IMPORTANCES = (
    "The share of a key in the variance of the objective (functional ANOVA, Hutter et al. 2014), by a random forest on "
    "the finished trials. Keys that some of them do not vary are left out."
)


def status(trial: FrozenTrial) -> str:
    """Return the state of a trial as a word for the report."""
    if WHY in trial.user_attrs:
        return "failed"
    names = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "lost"}
    return names.get(trial.state, trial.state.name.lower())


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were trained to the end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def write_trials(folder: Path, plan: Plan, study: optuna.Study) -> None:
    """Write trials.csv, and best.yaml once a trial has finished.

    Raises:
        UserError: If they cannot be written.
    """
    name = plan.tuning.objective.name
    keys = [one.key for one in plan.space]
    rows = [
        {"trial": trial.number, "status": status(trial), name: trial.value, "seconds": trial.user_attrs.get(SECONDS)}
        | {"evaluations": len(trial.intermediate_values)}
        | {
            f"seed{seed}": value
            for seed, value in zip(plan.tuning.seeds, trial.user_attrs.get(VALUES, ()), strict=False)
        }
        | {key: _text(trial, key) for key in keys}
        | {"why": trial.user_attrs.get(WHY)}
        for trial in counted(study.get_trials(deepcopy=False))
    ]
    write_csv(folder / TRIALS, rows, ["trial", "status", name, "seconds"])
    if finished(study):
        best = study.best_trial
        config = plan.config(draw(plan.space, FixedTrial(best.params)))
        seeds = ", ".join(map(str, plan.tuning.seeds))
        what = f"# Trial {best.number} of {plan.tuning.name}: {name} {best.value:.6g} with seed {seeds}"
        write_text(folder / BEST, f"{what}\n{to_yaml(config)}")


def write_report(folder: Path, plan: Plan, study: optuna.Study, command: str) -> Path:
    """Write the report of a study with at least one finished trial, and return its Markdown file.

    Raises:
        UserError: If matplotlib is not installed, or a file cannot be written.
    """
    _draw_history(folder / HISTORY, plan, study)
    shares = importances(study)
    if shares:
        _draw_importances(folder / IMPORTANCE, shares)
    blocks = list(_blocks(folder, plan, study, shares))
    write_text(folder / REPORT, document.markdown(blocks, command))
    write_text(folder / PAGE, document.html(blocks, command))
    return folder / REPORT


def summary(study: optuna.Study) -> str:
    """Return the number of trials by state: "20 trials: 12 finished, 8 pruned"."""
    states = [status(trial) for trial in counted(study.get_trials(deepcopy=False))]
    return f"{len(states)} trials: " + ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each key that every finished trial varies; empty with too few or equal results."""
    if len(finished(study)) < MIN_TRIALS:
        return {}
    try:
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except RuntimeError:  # all trials have the same value
        return {}


def _blocks(folder: Path, plan: Plan, study: optuna.Study, shares: Mapping[str, float]) -> Iterator[Block]:
    tuning, best = plan.tuning, study.best_trial
    seeds = ", ".join(map(str, tuning.seeds))
    yield Heading(tuning.name)
    better = "" if tuning.objective.better == "higher" else " (lower is better)"
    yield Paragraph(
        f"{summary(study)}. The objective is {tuning.objective.name}{better} at the end of training, the mean over "
        f"seeds {seeds}. The best of many trials looks better than it is. To learn its true value, train {BEST} with "
        "other seeds."
    )
    yield Heading(f"Best: trial {best.number}, {tuning.objective.name} {best.value:.6g}")
    yield Table(("key", "value"), [(one.key, _text(best, one.key)) for one in plan.space if one.key in best.params])
    yield Heading("History")
    yield Image(folder / HISTORY, f"{tuning.objective.name} of every trial")
    if shares:
        yield Heading("Importance of the keys")
        yield Paragraph(IMPORTANCES)
        yield Image(folder / IMPORTANCE, "Share of each key")
    yield Heading("Trials")
    trials = sorted(counted(study.get_trials(deepcopy=False)), key=lambda trial: _rank(study, trial))
    keys = [one.key for one in plan.space]
    yield Table(
        ("trial", "status", tuning.objective.name, *(key.split(".")[-1] for key in keys)),
        [
            [
                str(trial.number),
                status(trial),
                "" if trial.value is None else str(short(trial.value)),
                *(_text(trial, key) for key in keys),
            ]
            for trial in trials
        ],
    )
    failed = [(str(trial.number), trial.user_attrs[WHY]) for trial in trials if WHY in trial.user_attrs]
    if failed:
        yield Heading("Failed")
        yield Table(("trial", "reason"), failed)


def _text(trial: FrozenTrial, key: str) -> str:
    """Return the value of a key as text, "" if the trial did not vary it."""
    value = trial.params.get(key, "")
    return json.dumps(value) if value is None or isinstance(value, bool) else str(short(value))


def _rank(study: optuna.Study, trial: FrozenTrial) -> tuple[bool, float, int]:
    """Return a key that sorts trials from the best one to those without a value."""
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    return trial.value is None, sign * (trial.value or 0.0), trial.number


def _draw_history(path: Path, plan: Plan, study: optuna.Study) -> None:
    """Draw the value of every trial, coloured by its cell if the cell is varied, and the best value so far."""
    name, done = plan.tuning.objective.name, finished(study)
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    pruned = [trial for trial in pruned if trial.intermediate_values]
    with drawing(path) as (figure, [[axes]]):
        best = np.maximum if study.direction == optuna.study.StudyDirection.MAXIMIZE else np.minimum
        so_far = best.accumulate([trial.values[0] for trial in done])
        axes.step([t.number for t in done], so_far, color="black", linewidth=1.2, where="post", label="best so far")
        for trial in done:
            axes.plot(trial.number, trial.values[0], "o", color=_colour(trial), markersize=5)
        for trial in pruned:
            last = trial.intermediate_values[max(trial.intermediate_values)]
            axes.plot(trial.number, last, "x", color=_colour(trial), markersize=5)
        for cell, trial in {_cell(trial): trial for trial in (*done, *pruned)}.items():
            axes.plot([], [], "o", color=_colour(trial), label=plain(cell or "finished"))
        if pruned:
            axes.plot([], [], "x", color=OTHER_COLOUR, label="pruned, at its last evaluation")
        axes.set(xlabel="trial", ylabel=plain(METRIC_LABELS.get(name, name.replace("_", " "))))
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside lower center", ncols=3)


def _colour(trial: FrozenTrial) -> str:
    return cell_colour(_cell(trial)) if _cell(trial) else OTHER_COLOUR


def _cell(trial: FrozenTrial) -> str:
    return str(trial.params.get("policy.cell", trial.params.get("network.cell", "")))


def _draw_importances(path: Path, shares: Mapping[str, float]) -> None:
    """Draw the importance of each key as a bar, the largest on top."""
    ranked = sorted(shares.items(), key=lambda item: item[1])
    with drawing(path, size=(6.4, 1.0 + 0.3 * len(ranked))) as (_, [[axes]]):
        axes.barh([plain(key) for key, _ in ranked], [share for _, share in ranked], color=OTHER_COLOUR)
        axes.set(xlabel="share of the variance", xlim=(0, 1))
        axes.grid(visible=False, axis="y")
