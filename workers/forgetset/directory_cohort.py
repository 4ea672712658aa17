"""An operator's own retain data as a cohort: MLUBench-form JSON files and the pictures they name.

``LETHE_RETAIN_DATA`` points to a directory with one or more ``*.json``: a list of ``{id, image,
conversations: [{from: human, value}, {from: gpt, value}]}``, where the second and third parts of ``image``
are class and entity (arXiv 2606.12809), and the picture lies at that path below the directory.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image as PillowImage
from PIL.Image import Image

from app.kit.errors import ConfigurationError
from app.lumoe.probes import CLASSES, Probe, Split, general_probes
from app.lumoe.types import ask
from workers.forgetset.cohort import Other
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt
from workers.forgetset.refusals import stable_hash
from workers.forgetset.wordings import Asked, own_probes

_LONGEST_SIDE = 1024


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What a directory holds: entity key -> (who, pictures by split), and its questions as probes."""

    entries: Mapping[str, tuple[Other, Mapping[Split, tuple[Path, ...]]]]
    probes: Mapping[tuple[str, Split], tuple[Probe, ...]]


@lru_cache(maxsize=4)
def _catalogue(directory: Path) -> _Catalogue:
    """Read every JSON file below the directory.

    Raises:
        ConfigurationError: The directory is missing, holds no readable data, or names no picture that exists.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"LETHE_RETAIN_DATA: {directory} is not a directory")
    found: dict[str, tuple[Other, set[Path]]] = {}
    asked: list[Asked] = []
    for file in sorted(directory.rglob("*.json")):
        try:
            items = json.loads(file.read_text("utf-8"))
            named = [(PurePosixPath(str(item["image"])), item) for item in items]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"LETHE_RETAIN_DATA: {file.name} is not in MLUBench's form, objects with 'image': {error}"
            ) from error
        for name, item in named:
            picture = directory / name
            if len(name.parts) < 4 or ".." in name.parts or name.is_absolute() or not picture.is_file():
                continue
            klass, entity = name.parts[1], name.parts[2]
            key = f"{klass}/{entity}"
            if klass.replace("_", " ") in CLASSES:
                other = Other(key, klass.replace("_", " "), (entity.replace("_", " "),))
                found.setdefault(key, (other, set()))[1].add(picture)
                asked += _asked(other, item)
    if not found:
        raise ConfigurationError(
            f"LETHE_RETAIN_DATA: no picture named by a JSON file exists below {directory}; "
            "put them at <directory>/<image>, as the JSON spells it"
        )
    entries = {key: (other, _divide(sorted(pictures))) for key, (other, pictures) in sorted(found.items())}
    return _Catalogue(entries, own_probes(asked))


def _asked(other: Other, item: Mapping[str, Any]) -> list[Asked]:
    """Return an item's first question and its answer; nothing where it has none."""
    turns = item.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns[:2]):
        return []
    question, answer = (str(turn.get("value") or "") for turn in turns[:2])
    return [Asked(other.klass, other.names, question, answer)]


def _divide(pictures: Sequence[Path]) -> dict[Split, tuple[Path, ...]]:
    """Give every split its own pictures; with fewer than three, fit goes short before report does."""
    ordered = sorted(pictures, key=lambda path: stable_hash("picture", path.name))
    held = max(1, len(ordered) // 5)
    report, calibrate = ordered[:held], ordered[held : 2 * held]
    return {"report": tuple(report), "calibrate": tuple(calibrate), "fit": tuple(ordered[2 * held :])}


class DirectoryCohort:
    """Others from an operator's directory. No strangers: nobody knows whom a real model never saw."""

    def __init__(self, directory: Path, subject_names: Sequence[str]) -> None:
        subject = Names(subject_names)
        everybody = _catalogue(directory)
        self._probes = everybody.probes
        self._catalogue = {
            key: entry for key, entry in everybody.entries.items() if not subject.borne_by(entry[0].names)
        }

    def others(self, klass: str | None = None) -> Sequence[Other]:
        """See ``Cohort.others``; without anybody of the class, everybody is a neighbour."""
        everybody = [other for other, _ in self._catalogue.values()]
        return [other for other in everybody if klass is None or other.klass == klass] or everybody

    def practice(self) -> Sequence[Other]:
        """Return everybody: an operator's retain data are those who are kept."""
        return [other for other, _ in self._catalogue.values()]

    def strangers(self, klass: str, n: int, seed: int) -> Sequence[Other]:  # noqa: ARG002 - the protocol's
        """Return nobody; see the class."""
        return []

    def pictures(self, other: Other, split: Split, n: int) -> list[Image]:
        """See ``Cohort.pictures``; long sides above 1024 pixels are scaled down."""
        paths = self._catalogue[other.key][1][split]
        return [_open(path) for path in paths[:n]]

    def probes(self, klass: str, split: Split) -> Sequence[Probe]:
        """See ``Cohort.probes``: the files' own questions, without the name of whom they concern."""
        return self._probes.get((klass, split), ())

    def general(self, split: Split, n: int, seed: int) -> list[Prompt]:
        """See ``Cohort.general``; text only."""
        probes = list(general_probes(split))
        random.Random(stable_hash("general", seed, split)).shuffle(probes)  # noqa: S311 - sampling
        return [Prompt(ask(p.text), "general", p.attribute, "text") for p in probes[:n]]


def _open(path: Path) -> Image:
    with PillowImage.open(path) as picture:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        return picture.convert("RGB")
