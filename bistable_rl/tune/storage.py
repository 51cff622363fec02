"""The storage of a study: an SQLite file in its folder, or a database server that several machines share.

The password in a server's URL is neither printed nor written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from bistable_rl.compare.jobs import hashed_keys
from bistable_rl.compare.launchers import POLL_SECONDS
from bistable_rl.errors import UserError, one_sentence, shown
from bistable_rl.runs.lock import LockedError, take
from bistable_rl.tune.sampling import make_pruner, make_sampler
from bistable_rl.tune.tuning import Plan

BEAT_SECONDS, GRACE_SECONDS = 60, 300
"""The interval of a running trial's heartbeats, and the silence after which its machine counts as gone."""
TRIES = 3
"""The number of attempts at a trial whose process or machine is killed."""
DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""The packages of SQLAlchemy's database drivers whose modules have other names."""
AGAIN, TRY, CONFIG = "again", "try", "config"
"""Attributes of trials (the trial that this one repeats, the number of this attempt) and of the study (its keys)."""


class Storage:
    """A storage, opened by its URL.

    Args:
        url: SQLAlchemy's URL, such as postgresql+psycopg2://host/database.

    Attributes:
        shown: The URL without its password and options, for messages and files.

    Raises:
        UserError: If the URL is not of this form, its driver is not installed, or the storage cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sqlalchemy.engine.make_url(url)
        except SQLAlchemyError:
            form = "sqlite:///study.db or postgresql+psycopg2://user@host/database"
            raise UserError(f"--storage: this is not the URL of a database, such as {form}.") from None
        self.shown = parsed.set(query={}).render_as_string(hide_password=True)
        secrets = (str(parsed.password or ""), *(str(value) for value in parsed.query.values()), url)
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        options = (
            {"connect_args": {"timeout": 60}} if parsed.get_backend_name() == "sqlite" else {"pool_pre_ping": True}
        )
        with self.errors(UserError, RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                self.database = _open(url, options)
            except (IntegrityError, ProgrammingError):  # another machine has made the same tables at the same time
                time.sleep(POLL_SECONDS)
                self.database = _open(url, options)

    @contextlib.contextmanager
    def errors(self, kind: type[Exception], *more: type[Exception]) -> Iterator[None]:
        """Turn errors of the database or of further types in the block into one sentence without the password."""
        known: tuple[type[Exception], ...] = (
            SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
            ImportError,
            *more,
        )
        try:
            yield
        except known as error:
            cause = getattr(error, "orig", None) or error.__cause__ or error
            text = one_sentence(cause)
            if isinstance(cause, ModuleNotFoundError):
                package = DRIVERS.get(cause.name or "", cause.name)
                text = f"its driver {cause.name} is not installed; install it with pip install '{package}'."
            for secret in self._secrets:
                text = text.replace(secret, "***")
            raise kind(f"the storage {self.shown}: {text}") from None

    def study(self, plan: Plan, evaluations: int, *, create: bool = True) -> optuna.Study | None:
        """Return the study of a plan, a new study if there is none.

        Args:
            plan: The plan.
            evaluations: The number of evaluations in a complete trial.
            create: Whether to make a new study; otherwise return None if there is none.

        Raises:
            UserError: If the study of that name has another space, base or objective.
        """
        tuning = plan.tuning
        with self.errors(UserError):
            if not create and tuning.name not in optuna.get_all_study_names(self.database):
                return None
            study = optuna.create_study(
                storage=self.database,
                study_name=tuning.name,
                direction="maximize" if tuning.objective.better == "higher" else "minimize",
                sampler=make_sampler(tuning.sampler),
                pruner=make_pruner(tuning.pruner, evaluations),
                load_if_exists=True,
            )
            ours = _identity(plan)
            if CONFIG not in study.user_attrs and study.get_trials(deepcopy=False):
                raise UserError(f"the study {tuning.name} of {self.shown} was not made by bistable-rl; change name.")
            if CONFIG not in study.user_attrs:
                study.set_user_attr(CONFIG, json.dumps(ours))
            theirs = json.loads(study.user_attrs[CONFIG])
        for key in {**theirs, **ours}:
            if theirs.get(key) != ours.get(key):
                raise UserError(
                    f"{plan.path}: {key} is {shown(ours.get(key))} here and {shown(theirs.get(key))} in the study "
                    f"{tuning.name} of {self.shown}. A study cannot change; set the old value again, or change name."
                )
        return study

    def heartbeat(self, study: optuna.Study, numbers: Iterator[int]) -> None:
        """Record a heartbeat of these trials, and begin trials again whose last heartbeat is too old."""
        for number in numbers:
            self.database.record_heartbeat(self._trial_id(study, number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)

    def trial(self, study: optuna.Study, number: int) -> optuna.Trial:
        """Return a running trial, so that values can be reported to it."""
        return optuna.Trial(study, self._trial_id(study, number))

    def _trial_id(self, study: optuna.Study, number: int) -> int:
        study_id = self.database.get_study_id_from_name(study.study_name)
        return self.database.get_trial_id_from_study_id_trial_number(study_id, number)


def _open(url: str, options: dict[str, Any]) -> RDBStorage:
    return RDBStorage(
        url,
        engine_kwargs=options,
        heartbeat_interval=BEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=_begin_again,
    )


def sqlite_url(file: Path) -> str:
    """Return the URL of an SQLite file, with doubled braces, because Optuna reads braces as placeholders."""
    url = sqlalchemy.URL.create("sqlite", database=str(file)).render_as_string()
    return url.replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait for the lock of a study's folder and hold it in the block, so that two processes do not do the same work."""
    while True:
        try:
            lock = take(folder)
            break
        except LockedError:
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials except those that were begun again under another number."""
    repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [trial for trial in trials if trial.number not in repeated]


def _begin_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial with the values of a trial whose machine is gone."""
    attempt = trial.user_attrs.get(TRY, 1) + 1
    if attempt <= TRIES:
        queued = optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={AGAIN: trial.number, TRY: attempt},
        )
        study.add_trial(queued)


def _identity(plan: Plan) -> dict[str, Any]:
    """Return by full name the keys that must be equal in two files of the same study."""
    tuning = plan.tuning
    sections = {name: dataclasses.asdict(getattr(tuning, name)) for name in ("objective", "pruner", "sampler")}
    keys = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    keys |= {"seeds": tuning.seeds} | {f"space.{key}": value for key, value in tuning.space.items()}
    keys |= {f"base.{key}": value for key, value in hashed_keys(plan.config({})).items()}
    identity: dict[str, Any] = json.loads(json.dumps(keys))
    return identity
