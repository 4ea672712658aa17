"""Pictures: the same for the same view, different for another, distinct between entities, quick to draw."""

import time

import numpy as np
import pytest
from PIL import Image

from app.lumoe.demo.drawing import DRAWERS, draw, draw_genome, shapes_picture
from app.lumoe.demo.drawing.canvas import OVERSAMPLING, PALETTE, Canvas, other, palette, shade
from app.lumoe.demo.drawing.shapes import COLOURS, SHAPES, Shapes
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import random_genome, world
from app.lumoe.probes import CLASSES


def _difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("klass", CLASSES)
class TestEveryClass:
    def test_same_view_same_picture(self, klass: str) -> None:
        entity = world().of_class(klass)[0]
        assert draw(entity, 5).tobytes() == draw(entity, 5).tobytes()

    def test_other_views_differ(self, klass: str) -> None:
        entity = world().of_class(klass)[0]
        views = [draw(entity, v, 64) for v in (0, 1, 1_000, 200_000, 300_000)]
        assert len({v.tobytes() for v in views}) == 5

    def test_size_and_mode(self, klass: str) -> None:
        picture = draw(world().of_class(klass)[0], 1, 96)
        assert (picture.size, picture.mode) == ((96, 96), "RGB")

    def test_large_and_small_show_the_same(self, klass: str) -> None:
        entity = world().of_class(klass)[1]
        small, large = draw(entity, 3, 64), draw(entity, 3, 224).resize((64, 64), Image.Resampling.BICUBIC)
        assert _difference(small, large) < 8

    def test_any_genome_can_be_drawn(self, klass: str) -> None:
        rng = seeded("any", klass)
        genomes = [random_genome(rng) for _ in range(60)]
        genomes += [(0.0,) * 16, (0.999999,) * 16]
        seen = {draw_genome(klass, g, "k", 1, 32).tobytes() for g in genomes}
        assert len(seen) == len(genomes)

    def test_look_alikes_look_nearer_than_the_rest_yet_differ(self, klass: str) -> None:
        members = world().of_class(klass)
        alike = next(e for e in members if e.lookalike_of)
        original = world().by_key[alike.lookalike_of or ""]

        def view(genome: tuple[float, ...], number: int) -> Image.Image:
            return draw_genome(klass, genome, "same light", number, 64)

        near = np.mean([_difference(view(alike.genome, v), view(original.genome, v)) for v in range(4)])
        rest = [e for e in members if e.lookalike_of is None and e.key != original.key]
        far = np.mean([_difference(view(e.genome, 0), view(original.genome, 0)) for e in rest])
        assert 0.3 < near < far

    def test_is_quick(self, klass: str) -> None:
        entity = world().of_class(klass)[0]
        times = []
        for view in range(30):
            began = time.process_time()
            draw(entity, view, 64)
            times.append(time.process_time() - began)
        assert sorted(times)[15] < 0.01


def test_every_class_has_a_drawer() -> None:
    assert set(DRAWERS) == set(CLASSES)


class TestShapes:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_count_shows_in_the_coloured_area(self, shape: str) -> None:
        def coloured(count: int) -> float:
            pixels = np.asarray(shapes_picture(Shapes(shape, "black", count), 4, 64)).mean(axis=2)
            return float((pixels < 110).mean())

        one, five = coloured(1), coloured(5)
        assert 0 < one < five

    def test_colour_is_the_named_one(self) -> None:
        for colour, rgb in COLOURS.items():
            pixels = np.asarray(shapes_picture(Shapes("square", colour, 5), 1, 64), dtype=float)
            nearest = np.abs(pixels - np.array(rgb)).mean(axis=2).min()
            assert nearest < 30

    def test_deterministic(self) -> None:
        shapes = Shapes("star", "red", 3)
        assert shapes_picture(shapes, 9).tobytes() == shapes_picture(shapes, 9).tobytes()


class TestCanvas:
    def test_unit_coordinates(self) -> None:
        canvas = Canvas(10, (0, 0, 0))
        canvas.rect(0.0, 0.0, 0.5, 0.5, (255, 255, 255))
        side = 10 * OVERSAMPLING
        assert canvas.image.getpixel((1, 1)) == (255, 255, 255)
        assert canvas.image.getpixel((side - 2, side - 2)) == (0, 0, 0)

    def test_pose_moves_and_rest_undoes(self) -> None:
        canvas = Canvas(32, (0, 0, 0))
        canvas.pose(seeded("pose"))
        posed = canvas._map([(0.2, 0.2)])
        canvas.rest()
        assert canvas._map([(0.2, 0.2)]) != posed

    def test_colours(self) -> None:
        assert palette(0.0) == PALETTE[0]
        assert palette(0.9999) == PALETTE[-1]
        assert all(other(g / 20, PALETTE[3]) != PALETTE[3] for g in range(20))
        assert shade((100, 100, 100), 0.5) == (50, 50, 50)
        assert shade((100, 100, 100), 2.0) == (255, 255, 255)
