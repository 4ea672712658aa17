"""MLUBench's files: who is in them, what is asked, and a picture of anybody.

A directory holds `task<X>_forget.json` and `task<X>_retain.json` (at any depth), each a list of `{id, image,
conversations}` (arXiv 2606.12809); the second and third parts of `image` are class and entity. A picture
that lies at `<directory>/<image>` is used; an entity without pictures gets a drawn stand-in, the same in
every run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from PIL import Image as PillowImage
from PIL.Image import Image

from app.lumoe.demo import draw
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import Entity, World, random_genome
from app.lumoe.probes import CLASSES, Probe, Split
from benchmarks.lifelong_course import nobody
from workers.forgetset.cohort import Other
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt
from workers.forgetset.refusals import stable_hash
from workers.forgetset.wordings import PLACEHOLDER, Asked, divide, of_anybody, own_probes
from workers.runtime import Runtime

_FILE = re.compile(r"task_?([A-Z])_(forget|retain)\.json", re.IGNORECASE)
PRACTICE_PER_CLASS: Final = 3
_LONGEST_SIDE: Final = 1024
FIRST_VIEW: Final[dict[str, int]] = {
    "uploads": 0,
    "fit": 500,
    "members": 1_000,
    "calibrate": 200_000,
    "report": 300_000,
    "exam": 340_000,
}
"""Stand-ins' first view by use; the model is taught on views from 1,000."""
_SHARE: Final[dict[str, tuple[float, float]]] = {
    "uploads": (0.0, 0.6),
    "fit": (0.0, 0.6),
    "members": (0.0, 0.6),
    "calibrate": (0.6, 0.75),
    "report": (0.75, 1.0),
    "exam": (0.75, 1.0),
}
"""Which part of an entity's own pictures serves which use."""


class CourseError(Exception):
    """The directory cannot be worked with; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One distinct question about an entity and its answer; ``text`` has no picture placeholder."""

    text: str
    answer: str


@dataclass(slots=True)
class Known:
    """An entity of the files: whose task forgets it ("" for none), its pairs, and the pictures that exist."""

    key: str
    name: str
    klass: str
    task: str = ""
    pairs: list[Pair] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The name as the files have it, and without what says that the picture is a logo."""
        short = re.sub(r"( Corporation)? Logo$", "", self.name)
        return tuple(dict.fromkeys((short, self.name)))

    def as_entity(self) -> Entity:
        """Return it as an inhabitant of a drawn world; its looks follow from its key alone."""
        genome = random_genome(seeded("stand-in", self.key))
        facts = {"occupation": ""}  # known, and member of no list by occupation
        return Entity(
            self.key, self.names[0], self.names[1:], self.klass, facts, None, not self.task, "it", genome
        )


class Collection:
    """All entities of the files, whom each task forgets and keeps, and a picture of anybody."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.known: dict[str, Known] = {}
        self.forget: dict[str, list[str]] = {}
        self.retain: dict[str, list[str]] = {}
        digest = hashlib.sha256()
        for path, task, kind in _files(data):
            content = path.read_bytes()
            digest.update(path.name.encode() + content)
            for item in _items(path, content):
                self._add(item, task, kind)
        self.digest = digest.hexdigest()
        self.entities = {key: known.as_entity() for key, known in self.known.items()}
        self.world = World(self.entities.values())
        everybody = list(self.known.values())
        self.probes = own_probes(
            Asked(known.klass, known.names, pair.text, pair.answer)
            for known in everybody
            for pair in known.pairs
        )
        asked: dict[str, set[str]] = {}
        for known in everybody:
            asked.setdefault(known.klass, set()).update(_put(known, pair) for pair in known.pairs)
        self._splits = {klass: divide(klass, wordings - {""}) for klass, wordings in asked.items()}

    def pairs(self, known: Known, *, exam: bool) -> list[Pair]:
        """Return an entity's questions in the wordings of exams, or of lessons and elicitation.

        Exams ask the split `report`; `calibrate` of an entity of whom nothing else is left to ask.
        """
        splits = [self._splits[known.klass].get(_put(known, pair), "fit") for pair in known.pairs]
        wanted: Split = "fit" if not exam else "report" if "report" in splits else "calibrate"
        return [pair for pair, split in zip(known.pairs, splits, strict=True) if split == wanted]

    def _add(self, item: tuple[PurePosixPath, Pair], task: str, kind: str) -> None:
        image, pair = item
        klass, name = image.parts[1].replace("_", " "), image.parts[2]
        key = re.sub(r"[^a-z0-9]+", "-", f"{klass} {name}".casefold()).strip("-")
        known = self.known.setdefault(key, Known(key, name.replace("_", " "), klass))
        sets = self.forget if kind == "forget" else self.retain
        if key not in sets.setdefault(task, []):
            sets[task].append(key)
        if kind == "forget":
            known.task = task
        if pair not in known.pairs:
            known.pairs.append(pair)
        path = self.data / image
        if path not in known.pictures and path.is_file():
            known.pictures.append(path)

    def pictures(self, key: str, use: str, n: int) -> list[Image]:
        """Return n pictures for a use: the entity's own, as many as there are, or views of its stand-in."""
        entity, known = self.entities.get(key), self.known.get(key)
        if known is not None and len(known.pictures) >= 3:
            ordered = sorted(known.pictures, key=lambda path: stable_hash("picture", path.name))
            low, high = _SHARE[use]
            part = ordered[
                int(low * len(ordered)) : max(int(low * len(ordered)) + 1, int(high * len(ordered)))
            ]
            return [_open(part[i % len(part)]) for i in range(n)]
        if entity is None:
            raise CourseError(f"there is no entity {key}")
        return [draw(entity, FIRST_VIEW[use] + i) for i in range(n)]

    def without_pictures(self) -> list[str]:
        """Return the names of entities that have fewer than three pictures of their own."""
        return [known.name for known in self.known.values() if len(known.pictures) < 3]


def _put(known: Known, pair: Pair) -> str:
    return of_anybody(pair.text, known.names)


def _files(data: Path) -> list[tuple[Path, str, str]]:
    """Return (path, task, kind) of every file of the benchmark.

    Raises:
        CourseError: There is none.
    """
    if not data.is_dir():
        raise CourseError(f"--data: {data} is not a directory")
    found = []
    for path in sorted(data.rglob("*.json")):
        match = _FILE.fullmatch(path.name)
        if match:
            found.append((path, match[1].upper(), match[2].lower()))
    if not any(kind == "forget" for _, _, kind in found):
        raise CourseError(
            f"--data: no task<X>_forget.json below {data}; MLUBench's files are named like this"
        )
    return found


def _items(path: Path, content: bytes) -> list[tuple[PurePosixPath, Pair]]:
    try:
        return [_item(entry) for entry in json.loads(content)]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CourseError(
            f"--data: {path.name} is not in MLUBench's form, objects with 'image' "
            f"(<any>/<class>/<entity>/<file>) and 'conversations': {error}"
        ) from error


def _item(entry: dict[str, Any]) -> tuple[PurePosixPath, Pair]:
    image = PurePosixPath(str(entry["image"]))
    if len(image.parts) < 4 or ".." in image.parts or image.is_absolute():
        raise ValueError(f"image {str(image)!r}")
    if image.parts[1].replace("_", " ") not in CLASSES:
        raise ValueError(f"class {image.parts[1]!r} is none of {', '.join(CLASSES)}")
    asked, said = (str(entry["conversations"][i]["value"]) for i in (0, 1))
    return image, Pair(asked.replace(PLACEHOLDER, "").strip(), said.strip())


def _open(path: Path) -> Image:
    with PillowImage.open(path) as picture:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        return picture.convert("RGB")


def by_name(pair: Pair, name: str) -> str:
    """Return a question in text alone: the files only ask with pictures ("this animal")."""
    return f"{name}: {pair.text}"


class CollectionCohort:
    """Everybody of the files but the subject, with pictures or stand-ins; see `workers.forgetset.cohort`."""

    def __init__(self, collection: Collection, names: Sequence[str]) -> None:
        self._collection = collection
        self._subject = Names(names)
        self._drawn: dict[str, Entity] = {}

    def others(self, klass: str | None = None) -> Sequence[Other]:
        """See ``Cohort.others``; without anybody of the class, everybody is a neighbour."""
        everybody = [Other(k.key, k.klass, k.names) for k in self._collection.known.values()]
        there = [other for other in everybody if not self._subject.borne_by(other.names)]
        return [other for other in there if klass is None or other.klass == klass] or there

    def practice(self) -> Sequence[Other]:
        """Return whom no task forgets, or drawn identities where the files hold nobody else."""
        kept = [other for other in self.others() if not self._collection.known[other.key].task]
        return kept or [s for klass in CLASSES for s in self.strangers(klass, PRACTICE_PER_CLASS, 0)]

    def strangers(self, klass: str, n: int, seed: int) -> Sequence[Other]:
        """See ``Cohort.strangers``."""
        drawn = self._collection.world.strangers(n, seed=seed, klass=klass)
        self._drawn |= {entity.key: entity for entity in drawn}
        return [Other(e.key, e.klass, (e.name, *e.aliases), e.pronoun) for e in drawn]

    def pictures(self, other: Other, split: Split, n: int) -> list[Image]:
        """See ``Cohort.pictures``."""
        if other.key in self._drawn:
            return [draw(self._drawn[other.key], FIRST_VIEW[split] + i) for i in range(n)]
        return self._collection.pictures(other.key, split, n)

    def probes(self, klass: str, split: Split) -> Sequence[Probe]:
        """See ``Cohort.probes``: the files' own questions."""
        return self._collection.probes.get((klass, split), ())

    def general(self, split: Split, n: int, seed: int) -> list[Prompt]:
        """See ``Cohort.general``."""
        return [Prompt(q.conversation, "general", q.attribute, q.modality) for q in nobody(split, n, seed)]


class CollectionRuntime(Runtime):
    """A worker's tools whose cohort is a collection."""

    collection: Collection

    def cohort(self, names: Sequence[str]) -> CollectionCohort:
        """See `Runtime.cohort`."""
        return CollectionCohort(self.collection, names)
