"""What every benchmark writes: figures as JSON, plots, and whether a target is met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is held to: at most or at least `limit`. `by_model`: it is measured of every model."""

    key: str
    label: str
    at_most: bool
    limit: float
    unit: str = ""
    by_model: bool = False

    def met(self, value: float) -> bool:
        """Whether a value meets the target."""
        return value <= self.limit if self.at_most else value >= self.limit

    @property
    def text(self) -> str:
        """The target as a reader writes it."""
        return f"{'<=' if self.at_most else '>='} {self.limit:g}{self.unit}"

    def verdict(self, value: float | None) -> str:
        """Return `pass`, `FALLS SHORT`, or a dash if there is no value."""
        return "–" if value is None else "pass" if self.met(value) else "FALLS SHORT"


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write figures, in a directory that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))


def save_plot(figure: Figure, path: Path) -> Path:
    """Lay a figure out, write it, close it, and return the path."""
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
