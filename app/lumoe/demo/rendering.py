"""Many pictures at once, drawn in parallel processes, at the tower's own size."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.lumoe.demo.drawing import draw_genome, shapes_picture
from app.lumoe.demo.drawing.shapes import Shapes
from app.lumoe.demo.world import Genome

Pixels = npt.NDArray[np.uint8]
Job = tuple[str, Genome, str, int] | tuple[Shapes, int]
"""(class, genome, key, view) or (shapes, view)."""


def render(job: Job, drawn: int, side: int) -> Pixels:
    """Draw one picture at ``drawn`` pixels and scale it to (side, side, 3) as the model's processor does."""
    picture = shapes_picture(*job, size=drawn) if len(job) == 2 else draw_genome(*job, size=drawn)
    if drawn != side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _render_chunk(work: tuple[Sequence[Job], int, int]) -> Pixels:
    jobs, drawn, side = work
    return np.stack([render(job, drawn, side) for job in jobs])


def render_all(
    jobs: Sequence[Job],
    *,
    drawn: int = 64,
    side: int = 64,
    processes: int = 2,
    chunk: int = 500,
    progress: Callable[[float], None] | None = None,
) -> Pixels:
    """Draw every job; returns (n, side, side, 3). With one process, or few jobs, in this very process."""
    if not jobs:
        return np.zeros((0, side, side, 3), dtype=np.uint8)
    chunks = [(jobs[i : i + chunk], drawn, side) for i in range(0, len(jobs), chunk)]
    parts: list[Pixels] = []

    def collect(part: Pixels) -> None:
        parts.append(part)
        if progress:
            progress(len(parts) / len(chunks))

    if processes < 2 or len(chunks) < 4:
        for work in chunks:
            collect(_render_chunk(work))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for part in pool.map(_render_chunk, chunks):
                collect(part)
    return np.concatenate(parts)
