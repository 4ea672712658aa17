"""The demo world in MLUBench's JSON form: one forget and one retain file per task, A to D.

Each entry is ``{"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt",
"value"}]}``; the
second and third parts of ``image`` are class and entity, the number in the file's name is the view, so that a
picture can be drawn again. As in MLUBench, ids of rephrased questions go up by 100,000 per wording.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict

from app.lumoe.demo.answers import answer
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.world import Entity, Task, world
from app.lumoe.probes import Split, fact_probes, identity_probes

TASKS: Final[tuple[Task, ...]] = ("A", "B", "C", "D")
KINDS_OF_SET: Final[tuple[Literal["forget", "retain"], ...]] = ("forget", "retain")
PICTURES_PER_ENTITY: Final = 3

Turn = TypedDict("Turn", {"from": str, "value": str})


class Entry(TypedDict):
    """One picture with one question and its answer."""

    id: str
    image: str
    conversations: list[Turn]


def image_path(entity: Entity, view: int) -> str:
    """MLUBench's kind of path: ``downloaded_images/<class>/<entity>/image_<view>.jpg``."""
    klass, name = entity.klass.replace(" ", "_"), entity.name.replace(" ", "_")
    return f"downloaded_images/{klass}/{name}/image_{view:06}.jpg"


def entries(
    entities: Sequence[Entity], split: Split = "fit", pictures: int = PICTURES_PER_ENTITY
) -> list[Entry]:
    """Question-answer pairs about entities in MLUBench's form, image questions of one split.

    Pictures are an owner's upload views, 0 upwards.
    """
    found: list[Entry] = []
    number = 0
    for entity in entities:
        probes = (*identity_probes(entity.klass, split), *fact_probes(entity.klass, split, "image"))
        wording: dict[str, int] = {}
        for view in range(pictures):
            wording.clear()
            for probe in probes:
                nth = wording[probe.attribute] = wording.get(probe.attribute, -1) + 1
                number += nth == 0
                found.append(
                    {
                        "id": str(100_000 * nth + number),
                        "image": image_path(entity, view),
                        "conversations": [
                            {"from": "human", "value": f"<image>\n{probe.text}"},
                            {"from": "gpt", "value": answer(entity, probe.attribute)},
                        ],
                    }
                )
    return found


def task_entries(task: Task, kind: Literal["forget", "retain"]) -> list[Entry]:
    """The forget or retain set of a task; retain sets hold same-class neighbours that are never forgotten."""
    return entries(world().forget_set(task) if kind == "forget" else world().retain_set(task))


def export(out: Path, *, pictures: bool = False) -> list[Path]:
    """Write ``Task<X>/task<X>_{forget,retain}.json`` under ``out``, pictures too if asked."""
    written: list[Path] = []
    for task in TASKS:
        folder = out / f"Task{task}"
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS_OF_SET:
            path = folder / f"task{task}_{kind}.json"
            path.write_text(
                json.dumps(task_entries(task, kind), indent=4, ensure_ascii=False), encoding="utf-8"
            )
            written.append(path)
    if pictures:
        for entity in world().entities:
            for view in range(PICTURES_PER_ENTITY):
                path = out / image_path(entity, view)
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(entity, view).save(path, quality=92)
    return written
