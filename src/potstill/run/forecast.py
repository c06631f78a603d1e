"""What `potstill forecast` found: forecast.json as types, with one writer and one reader."""

from dataclasses import asdict, dataclass
from pathlib import Path

from potstill.metrics import Interval
from potstill.run.files import write_json
from potstill.run.folder import Run
from potstill.run.results import read_formatted

FORMAT = 1
"""Of forecast.json."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measured point of a learning curve."""

    photos: int
    """That it learned from."""
    error: float
    """Share of val photos, mean over the seeds."""


@dataclass(frozen=True, slots=True)
class FittedPoint:
    """A point of the fitted curve, with its interval."""

    photos: int
    error: Interval


@dataclass(frozen=True, slots=True)
class Gain:
    """What more photos would bring."""

    more: int
    """Photos beside those that the run has."""
    fewer_errors: Interval
    """By how much the error would fall, as a share of photos."""
    conclusion: str
    """In words, with the interval, or why there is no forecast."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The learning curve of a student or its twin over the photos of one kind."""

    kind: str
    """What there is more of: "labeled" or "unlabeled" photos. The others are the run's, all of them."""
    arm: str
    points: tuple[Point, ...]
    """Fewest photos first; the last is the run's own training."""
    limit: float
    """a of error = a + b · (photos / all)^-c, where all are the photos of the last point."""
    scale: float
    """b."""
    exponent: float
    """c."""
    fitted: tuple[FittedPoint, ...]
    gains: tuple[Gain, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The content of forecast.json."""

    student: str
    soft_labels: str
    """Digest of the soft labels that were learned from: of others, the forecast is stale."""
    seeds: int
    val_photos: int
    confidence: float
    """Of every interval."""
    curves: tuple[Curve, ...]


def forecast_path(run: Run) -> Path:
    """Where the forecast of a run is stored."""
    return run.path / "forecast" / "forecast.json"


def write_forecast(run: Run, forecast: Forecast) -> None:
    """Write forecast.json."""
    write_json(forecast_path(run), {"format": FORMAT, **asdict(forecast)})


def read_forecast(run: Run) -> Forecast | None:
    """Read forecast.json. None where there is none, or it was made from other soft labels than the run has now.

    Raises:
        DataError: it was written by another version of Potstill, or it is damaged.
    """
    path = forecast_path(run)
    if not path.is_file():
        return None
    advice = "Delete it and run `potstill forecast` again; what it trained is kept."
    forecast = read_formatted(Forecast, path, (FORMAT,), advice)
    return forecast if forecast.soft_labels == run.stage("3_soft_labels").digest() else None
