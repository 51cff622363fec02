"""The end of a training: result.json records every way to end."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bistable_rl.errors import DISK_FULL, NonFiniteError, RunFailedError, UserError, one_sentence
from bistable_rl.runs.files import non_finite
from bistable_rl.runs.folder import RESULT
from bistable_rl.runs.run import Run
from bistable_rl.runs.stopping import Stopper


@contextlib.contextmanager
def recording(
    run: Run, report: Callable[[], Mapping[str, Any]], *, hardware: Mapping[str, Any], stopper: Stopper, unit: str
) -> Iterator[None]:
    """Train in the block, in a run folder whose lock is held, and write result.json when it ends.

    A signal in the block raises KeyboardInterrupt, except where `stopper.holding` holds it back. The status is
    "interrupted" after a signal or once `stopper.event` is set, "failed" after an error, and otherwise "finished".

    Args:
        run: The run.
        report: Returns the rest of the result after the training has ended: steps, seconds, evaluation, ...
        hardware: Device, threads and backend, for environment.json.
        stopper: Stops the training.
        unit: The noun for steps, such as "updates".

    Raises:
        UserError: If the disk is full, or a UserError ended the training.
        RunFailedError: If any other error ended it, or a number in the result is NaN or infinite.
    """
    status, failure = "failed", None
    with stopper.listening():
        with stopper.holding():  # from here on the folder changes, and a result must follow
            run.clean()
            run.write_environment(hardware)
            run.remove_result()
        try:
            yield
            status = "interrupted" if stopper.event.is_set() else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
        except Exception as error:  # any error: the run folder must say how the training ended
            failure = error
        with stopper.holding():  # the training ends here in any case
            saved = run.checkpoints.all()
            result = {
                "status": status,
                "signal": stopper.signal,
                **report(),
                "checkpoint": str(saved[-1].relative_to(run)) if saved else None,
            }
            for key, value in non_finite(result).items():
                failure = failure or NonFiniteError(f"{key} is {value}, which is not a finite number")
            written = _write(run, _finite(result), failure)
            if isinstance(failure, UserError):
                raise failure
            if failure is not None:
                raise _told(run, result, failure, unit, written) from failure


def _write(run: Run, result: dict[str, Any], failure: Exception | None) -> bool:
    """Write result.json; return whether it could be written after a failure."""
    if failure is None:
        run.write_result(result)
        return True
    try:
        run.write_result({**result, "status": "failed", "traceback": traceback.format_exception(failure)})
    except UserError:  # a full disk, which has already ended the training
        return False
    return True


def _told(run: Run, result: Mapping[str, Any], failure: Exception, unit: str, written: bool) -> Exception:
    """Return the error to show to the user for the error that ended a training."""
    if isinstance(failure, OSError) and failure.errno in DISK_FULL:
        return UserError(f"{failure.filename or run} cannot be written: {failure.strerror}.")
    is_plain = isinstance(failure, NonFiniteError | RunFailedError) or not str(failure).strip()
    kind = "" if is_plain else f"{type(failure).__name__}: "
    last = result["checkpoint"]
    left = "There is no checkpoint yet" if last is None else f"The last good checkpoint is {last}"
    more = f"see {RESULT} for more" if written else f"{RESULT} could not be written"
    return RunFailedError(
        f"{run} stopped after {result['steps']} {unit}; {kind}{one_sentence(failure)} {left}; {more}."
    )


def _finite(data: Any) -> Any:
    """Return a JSON document with null in place of NaN and infinity."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if non_finite(data) else data
