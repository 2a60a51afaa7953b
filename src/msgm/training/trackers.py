"""Losses told to a tracker of experiments as they come, by Accelerate's interfaces to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import UserError

TrackerName = Literal["tensorboard", "wandb", "trackio"]
FOLDER = "tensorboard"
"""Where TensorBoard's files lie in a run's folder; the others keep theirs elsewhere."""
PROJECT = "msgm"


def check(name: str | None, folder: object) -> None:
    """Raise UserError for a tracker that is not known or not installed, and where TensorBoard has no folder."""
    if name is None:
        return
    if name not in get_args(TrackerName):
        raise UserError(f"no tracker {name!r}; choose {', '.join(get_args(TrackerName))}", option="log_with")
    if missing := [each for each in ("accelerate", name) if find_spec(each) is None]:
        raise UserError(f"{name} needs {' and '.join(missing)}: pip install {' '.join(missing)}", option="log_with")
    if name == "tensorboard" and folder is None:
        raise UserError("tensorboard writes into the run's folder, and the run has none", option="log_with")


@contextmanager
def tracking(name: str | None, folder: Path | None, settings: Mapping[str, Any]) -> Iterator[Any]:
    """An open tracker of Accelerate, told the settings; None where none is asked for. It is closed at the end."""
    if name is None or folder is None:
        yield None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    where = {"logging_dir": folder} if name == "tensorboard" else {}
    run_name = FOLDER if name == "tensorboard" else PROJECT
    tracker = LOGGER_TYPE_TO_CLASS[name](run_name, **where)
    tracker.start()
    try:
        tracker.store_init_configuration({key: value for key, value in settings.items() if value is not None})
        yield tracker
    finally:
        tracker.finish()
