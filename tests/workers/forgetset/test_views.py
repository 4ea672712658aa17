"""Views: deterministic, and never shared between splits."""

from __future__ import annotations

import dataclasses

import pytest

from app.lumoe.probes import SPLITS, Split
from tests.lumoe.tiny import picture
from workers.forgetset.views import apply, draw_parameters, split_pictures, views

BELONGS: dict[Split, tuple[float, float]] = {
    "fit": (0.0, 0.5),
    "calibrate": (0.55, 0.7),
    "report": (0.75, 0.95),
}
ANGLES = (-7.0, 7.0)


class TestParameters:
    @pytest.mark.parametrize("split", SPLITS)
    def test_every_split_keeps_to_its_teeth(self, split: Split) -> None:
        low, high = BELONGS[split]
        for index in range(200):
            parameters = draw_parameters(1, index, split)
            unit = (parameters.angle - ANGLES[0]) / (ANGLES[1] - ANGLES[0])
            assert low - 1e-6 <= (unit * 10) % 1.0 <= high + 1e-6

    def test_deterministic_by_seed(self) -> None:
        assert draw_parameters(3, 7, "fit") == draw_parameters(3, 7, "fit")
        assert draw_parameters(3, 7, "fit") != draw_parameters(4, 7, "fit")

    def test_no_two_splits_draw_the_same(self) -> None:
        seen = {
            split: {dataclasses.astuple(draw_parameters(0, i, split))[:9] for i in range(50)}
            for split in SPLITS
        }
        assert not seen["fit"] & seen["report"]
        assert not seen["calibrate"] & seen["report"]


class TestViews:
    def test_same_picture_size_and_mode(self) -> None:
        view = apply(picture(1), draw_parameters(0, 0, "report"))
        assert (view.size, view.mode) == (picture(1).size, "RGB")

    def test_fit_begins_with_the_pictures_as_they_came(self) -> None:
        own = [picture(1), picture(2)]
        made = views(own, 5, "fit")
        assert [v.tobytes() for v in made[:2]] == [p.tobytes() for p in own]
        assert len({v.tobytes() for v in made}) == 5

    def test_report_shows_no_picture_as_it_came(self) -> None:
        own = [picture(1)]
        assert own[0].tobytes() not in {v.tobytes() for v in views(own, 6, "report")}

    def test_same_seed_same_pixels(self) -> None:
        first, second = (views([picture(1)], 3, "calibrate", seed=5) for _ in range(2))
        assert [v.tobytes() for v in first] == [v.tobytes() for v in second]

    def test_no_pictures_no_views(self) -> None:
        assert views([], 4, "fit") == []


class TestSplitPictures:
    @pytest.mark.parametrize(("n", "sizes"), [(1, (1, 1, 1)), (2, (2, 2, 2)), (3, (1, 1, 1)), (8, (4, 2, 2))])
    def test_sizes(self, n: int, sizes: tuple[int, int, int]) -> None:
        divided = split_pictures([picture(i) for i in range(n)])
        assert (len(divided["fit"]), len(divided["calibrate"]), len(divided["report"])) == sizes

    def test_three_or_more_are_shared_by_no_two_splits(self) -> None:
        divided = split_pictures([picture(i) for i in range(6)])
        seen = [p.tobytes() for split in SPLITS for p in divided[split]]
        assert len(seen) == len(set(seen)) == 6
