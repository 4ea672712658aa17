"""The export has MLUBench's JSON form."""

import json
import os
from pathlib import Path

import pytest

from app.lumoe.demo.drawing import draw
from app.lumoe.demo.export import TASKS, entries, export, image_path, task_entries
from app.lumoe.demo.world import world

MLUBENCH = Path(os.environ.get("LETHE_MLUBENCH", Path(__file__).parents[4] / "shared" / "data" / "mlubench"))

REAL_ENTRY = {
    "id": "1",
    "image": "downloaded_images/Animals/Dog/image_20241017_101505_6.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is the common name of this animal?"},
        {"from": "gpt", "value": "Dog"},
    ],
}
"""The first entry of MLUBench's TaskA/taskA_forget.json (arXiv 2606.12809), for its form."""


def _form(entry: object) -> object:
    if isinstance(entry, dict):
        return {key: _form(value) for key, value in entry.items()}
    return [_form(v) for v in entry] if isinstance(entry, list) else type(entry).__name__


def _check_like_mlubench(entry: dict[str, object]) -> None:
    assert _form(entry) == _form(REAL_ENTRY)
    assert str(entry["id"]).isdigit()
    parts = str(entry["image"]).split("/")
    assert parts[0] == "downloaded_images"
    assert len(parts) == 4
    assert parts[3].startswith("image_")
    human, gpt = json.loads(json.dumps(entry["conversations"]))
    assert human["from"] == "human"
    assert human["value"].startswith("<image>\n")
    assert gpt["from"] == "gpt"


@pytest.mark.parametrize("task", TASKS)
def test_every_entry_has_the_form(task: str) -> None:
    for kind in ("forget", "retain"):
        for entry in task_entries(task, kind):  # type: ignore[arg-type]
            _check_like_mlubench(dict(entry))


@pytest.mark.skipif(not MLUBENCH.is_dir(), reason="MLUBench's files are not on this machine")
def test_the_same_check_passes_on_mlubench_itself() -> None:
    for path in sorted(MLUBENCH.glob("Task*/*.json")):
        for entry in json.loads(path.read_text()):
            _check_like_mlubench(entry)


def test_retain_sets_share_classes_but_no_entity_with_forget_sets() -> None:
    for task in TASKS:
        parts = {kind: {tuple(e["image"].split("/")[1:3]) for e in task_entries(task, kind)}
                 for kind in ("forget", "retain")}  # fmt: skip
        assert not parts["forget"] & parts["retain"]
        assert {k for k, _ in parts["forget"]} <= {k for k, _ in parts["retain"]}


def test_files_and_pictures(tmp_path: Path) -> None:
    written = export(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in written[:2]] == [
        "TaskA/taskA_forget.json", "TaskA/taskA_retain.json"]  # fmt: skip
    assert len(written) == 8
    first = json.loads(written[0].read_text())
    assert first == entries(world().forget_set("A"))
    assert len({e["id"] for e in first}) > 100


def test_image_path_names_class_entity_and_view() -> None:
    entity = world().of_class("TV series")[0]
    path = image_path(entity, 2)
    assert path == f"downloaded_images/TV_series/{entity.name.replace(' ', '_')}/image_000002.jpg"
    assert draw(entity, 2).size == (224, 224)
