"""The farm's order, whom a request finds removed already, and what of a farm counts as grown."""

import json
from pathlib import Path
from types import SimpleNamespace

from app.lumoe.demo import world
from benchmarks.farm import farm_of, grown, names_before, sequence

MODEL = SimpleNamespace(fingerprint="0123456789abcdef")


def test_tasks_follow_each_other() -> None:
    tasks = [entity.task for entity in sequence()]
    assert tasks == sorted(tasks, key=str)
    assert len(set(sequence())) == len(world().forgettable) == 127


def test_the_first_request_finds_nobody_removed() -> None:
    assert names_before(sequence()[0]) == ()


def test_a_later_request_finds_the_earlier_ones_removed_under_all_their_names() -> None:
    first, second, third = sequence()[:3]
    assert names_before(third) == (first.name, *first.aliases, second.name, *second.aliases)


def test_only_whole_experts_are_grown(tmp_path: Path) -> None:
    farm = farm_of(MODEL, tmp_path)  # type: ignore[arg-type]  # only the fingerprint is read
    whole, half = sequence()[3], sequence()[1]
    figures = {"steps": 55, "seconds": 14.0, "refusal": 0.9, "agreement": 0.999, "recipe": {"rank": 8}}
    (farm / whole.key).mkdir(parents=True)
    (farm / whole.key / "meta.json").write_text(json.dumps({"key": whole.key, **figures}))
    (farm / f".{half.key}-17").mkdir()
    found = grown(MODEL, tmp_path)  # type: ignore[arg-type]
    assert list(found) == [whole.key]
    assert found[whole.key].adapter == farm / whole.key / "adapter"
