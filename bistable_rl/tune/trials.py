"""Carry out the trials of a study: train, report evaluations to Optuna, stop pruned trials, continue killed ones.

All state lies in the storage and in the run folders, `trial_007/seed0`. The process that carries out a trial holds the
lock of its folder. If Optuna lists a trial as running but its lock is free, its process was killed: the trial is
continued.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from bistable_rl.compare.engine import Bar, failure, stop
from bistable_rl.compare.jobs import Job, prepare
from bistable_rl.compare.launchers import POLL_SECONDS, Launcher, Running
from bistable_rl.compare.launchers.local import STOPPED
from bistable_rl.errors import RunFailedError, UserError
from bistable_rl.runs.files import make_folder
from bistable_rl.runs.lock import Lock, LockedError, take
from bistable_rl.runs.run import Run
from bistable_rl.runs.stopping import raising
from bistable_rl.tune.objective import Objective
from bistable_rl.tune.space import draw
from bistable_rl.tune.storage import BEAT_SECONDS, TRIES, Storage, counted, turn
from bistable_rl.tune.tuning import Plan

WHY, SECONDS, VALUES = "why", "seconds", "values"
"""Attributes of a trial: the reason of its failure, its seconds of training, its value with each seed."""


@dataclass
class _Trial:
    """A trial that this process carries out."""

    trial: Trial
    lock: Lock
    jobs: list[Job]
    reported: set[int]
    values: list[float] = field(default_factory=list)
    running: Running | None = None
    starts: int = 0
    pruned: bool = False

    @property
    def job(self) -> Job:
        """The run of the seed that is trained."""
        return self.jobs[len(self.values)]


class Tuner:
    """Carries out this process's share of the trials of a study.

    Args:
        plan: The study.
        objective: The objective of the study.
        study: Optuna's study.
        storage: The storage of the study.
        folder: The folder of the trials.
        launcher: The launcher of the runs.
        total: The number of trials of all processes together.
        ended: A function that is called whenever a trial has ended.
    """

    def __init__(
        self,
        plan: Plan,
        objective: Objective,
        study: optuna.Study,
        storage: Storage,
        folder: Path,
        launcher: Launcher,
        total: int,
        ended: Callable[[], None],
    ) -> None:
        self.plan, self.objective, self.study, self.storage = plan, objective, study, storage
        self.folder, self.launcher, self.total, self.ended = folder, launcher, total, ended
        self.waiting: deque[_Trial] = deque()
        self.running: list[_Trial] = []

    def carry_out(self) -> None:
        """Carry out trials until none is left to begin and all trials of this process have ended.

        Raises:
            KeyboardInterrupt: After a signal, once every run has stopped with a checkpoint.
            RunFailedError: If the storage fails.
            UserError: If a run folder holds another experiment, or a file cannot be written.
        """
        with self.storage.errors(RunFailedError):
            trials = counted(self.study.get_trials(deepcopy=False))
        ended = [trial for trial in trials if trial.state.is_finished()]
        self.bar = Bar(self.total, len(ended), unit="trials")
        with raising():
            try:
                with self.storage.errors(RunFailedError):
                    self._run()
            except BaseException:
                stop([one.running for one in self.running if one.running is not None], self.bar)
                raise
            finally:
                for one in (*self.running, *self.waiting):
                    one.lock.release()
                self.bar.close()

    def _run(self) -> None:
        due, free = time.monotonic(), True
        while True:
            if time.monotonic() >= due:
                due, free = time.monotonic() + BEAT_SECONDS, True
                self._begin()  # first, so that killed trials that this process continues stay alive
                self.storage.heartbeat(self.study, (one.trial.number for one in (*self.running, *self.waiting)))
            if free:
                self._begin()
            if not self.running:
                return
            time.sleep(POLL_SECONDS)
            before = len(self.running)
            for one in list(self.running):
                self._guarded(self._look_at, one)
            free = len(self.running) < before
            self.bar.show([one.job for one in self.running])

    def _guarded(self, step: Callable[[_Trial], None], one: _Trial) -> None:
        """Take a step of a trial; give the trial up if another machine, which took this one for gone, repeats it."""
        try:
            step(one)
        except optuna.exceptions.UpdateFinishedTrialError:
            if one.running is not None:
                one.running.kill()
            self._leave(one, "it was started again elsewhere")

    # --- beginning ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Continue the trials of killed processes and begin new ones until every slot is used."""
        with turn(self.folder):
            self.waiting.extend(self._killed())
            while len(self.running) < self.launcher.slots:
                one = self.waiting.popleft() if self.waiting else self._new()
                if one is None:
                    return
                self.running.append(one)
                self._guarded(self._go_on, one)

    def _killed(self) -> Iterator[_Trial]:
        ours = {one.trial.number for one in (*self.running, *self.waiting)}
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self._folder(frozen.number)
            if frozen.number not in ours and folder.is_dir():
                with contextlib.suppress(LockedError):
                    lock = take(folder)
                    trial = self.storage.trial(self.study, frozen.number)
                    one = self._opened(trial, lock, set(frozen.intermediate_values))
                    if one is not None:
                        yield one

    def _new(self) -> _Trial | None:
        """Ask Optuna for trials until one has compatible values; report the others as failed. None if none is left."""
        while True:
            trials = self.study.get_trials(deepcopy=False)
            queued = any(trial.state == TrialState.WAITING for trial in trials)
            if not queued and len(counted(trials)) >= self.total:
                return None
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Heartbeat of storage")
                trial = self.study.ask()
            self.storage.heartbeat(self.study, iter([trial.number]))
            one = self._opened(trial, take(make_folder(self._folder(trial.number))), set())
            if one is not None:
                return one

    def _opened(self, trial: Trial, lock: Lock, reported: set[int]) -> _Trial | None:
        """Prepare the run folders of a trial whose lock is held, and return it; None if it cannot be trained."""
        values = draw(self.plan.space, trial)
        one = _Trial(trial, lock, [], reported)
        try:
            config = self.plan.config(values)
        except UserError as error:
            self._failed(one, str(error))
            return None
        for seed in self.plan.tuning.seeds:
            job = Job(f"trial {trial.number}", replace(config, seed=seed), lock.folder / f"seed{seed}", values)
            prepare(job)
            one.jobs.append(job)
        return one

    # --- going on -------------------------------------------------------------------------------------------

    def _go_on(self, one: _Trial) -> None:
        """Start the next unfinished seed; end the trial if there is none, or if Optuna prunes it."""
        while len(one.values) < len(one.jobs):
            done = Run(one.job.folder).finished()
            self._report(one, whole=done)
            if one.pruned:
                self._end(one, TrialState.PRUNED, f"pruned after evaluation {max(one.reported)}")
                return
            if not done:
                one.starts += 1
                one.running = self.launcher.start(one.job)
                return
            found = self.objective.values(one.job, whole=True)
            if not found:
                self._failed(one, f"its evaluations report no {self.objective.name}.")
                return
            one.values.append(found[-1][1])
            one.starts = 0
        value = sum(one.values) / len(one.values)
        self._end(one, TrialState.COMPLETE, f"{self.objective.name} {value:.6g}", value)

    def _look_at(self, one: _Trial) -> None:
        """Report a running trial's new evaluations, stop it if it is pruned, and go on if its run has ended."""
        assert one.running is not None
        code = one.running.poll()
        if code is None:
            self._report(one, whole=False)
            if one.pruned:
                one.running.interrupt()
            return
        one.running = None
        killed = code < 0 or code in STOPPED
        if one.pruned or Run(one.job.folder).finished() or (killed and one.starts < TRIES):
            self._go_on(one)
        elif killed:
            self._failed(one, f"it was stopped or killed {TRIES} times; see {Run(one.job.folder).log}.")
        else:
            self._failed(one, failure(one.job, code))

    def _report(self, one: _Trial, *, whole: bool) -> None:
        """Report new evaluations to Optuna, one by one, and mark the trial if Optuna prunes it.

        The decision depends on the evaluations alone, neither on when they are read nor on whether a process was killed
        after it had reported one. With several seeds, the reported value is the mean of this seed's evaluation and the
        final values of the finished seeds. The last evaluation of a trial never prunes it.
        """
        before = len(one.values) * self.objective.evaluations
        for at, value in [] if one.pruned else self.objective.values(one.job, whole=whole):
            step = before + at
            known = step in one.reported
            if not known:
                one.trial.report((sum(one.values) + value) / (len(one.values) + 1), step)
                one.reported.add(step)
            ended = step >= len(one.jobs) * self.objective.evaluations
            if not ended and (not known or step == max(one.reported)) and one.trial.should_prune():
                one.pruned = True
                return

    # --- ending ---------------------------------------------------------------------------------------------

    def _failed(self, one: _Trial, why: str) -> None:
        """End a trial that cannot be trained; Optuna counts it as worse than all others."""
        one.trial.set_user_attr(WHY, why)
        self._end(one, TrialState.PRUNED, f"failed: {why}")

    def _end(self, one: _Trial, state: TrialState, text: str, value: float | None = None) -> None:
        results = [Run(job.folder).result for job in one.jobs]
        one.trial.set_user_attr(SECONDS, sum(result["seconds"] for result in results if result is not None))
        one.trial.set_user_attr(VALUES, one.values)
        self.study.tell(one.trial, value, state=state)
        self._leave(one, text)
        self.ended()

    def _leave(self, one: _Trial, text: str) -> None:
        one.lock.release()
        if one in self.running:
            self.running.remove(one)
        self.bar.done(f"trial {one.trial.number}: {text}")

    def _folder(self, number: int) -> Path:
        return self.folder / f"trial_{number:03d}"
