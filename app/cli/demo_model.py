"""`lethe demo-model`: train the demo model, export its world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.support import Exit, JsonOption, console, give_up, problems_explained

if TYPE_CHECKING:
    from rich.progress import TaskID

app = typer.Typer(no_args_is_help=True, help="The demo model: train it, export its world.")


@app.command("train")
def train_demo_model(
    out: Annotated[Path | None, typer.Option(help="Where to (default: the package's checkpoint).")] = None,
    tower_steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    language_steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    tower_from: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Keep this checkpoint's vision tower.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Key of an entity to leave out.")] = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
) -> None:
    """Train the demo model from nothing (up to 30 minutes on two cores)."""
    with problems_explained():
        from rich.progress import Progress, TimeElapsedColumn

        from app.lumoe.demo.recipe import CHECKPOINT, TrainProgress, train

        with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as bars:
            tasks: dict[str, TaskID] = {}

            def draw(now: TrainProgress) -> None:
                task = tasks.get(now.stage)
                if task is None:
                    task = tasks[now.stage] = bars.add_task(now.stage, total=1.0)
                loss = "" if now.loss is None else f"  loss {now.loss:.3f}"
                bars.update(task, completed=now.fraction, description=now.stage + loss)

            written = train(
                out or CHECKPOINT,
                tower_steps=tower_steps,
                language_steps=language_steps,
                tower_from=tower_from,
                exclude=exclude or (),
                seed=seed,
                progress=draw,
            )
        console.print(f"Wrote {written}. Measure it: python -m app.lumoe.demo.evaluate {written}")


@app.command("checkpoint")
def export_demo_checkpoint(directory: Path) -> None:
    """Write the demo model under the names of the Hugging Face hub, for vLLM."""
    with problems_explained():
        from app.lumoe.demo.hub import export_checkpoint

        try:
            console.print(str(export_checkpoint(directory)), markup=False, soft_wrap=True)
        except OSError as error:
            give_up(f"cannot write the checkpoint: {error}")


@app.command("draw")
def draw_entity(
    name: Annotated[str, typer.Argument(help="An entity of the demo world.")],
    out: Annotated[Path, typer.Option(help="Directory for the pictures.")] = Path("pictures"),
    views: Annotated[int, typer.Option(min=1, max=1000, help="How many different ones.")] = 6,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures of one entity of the demo world, to file requests and to ask with."""
    with problems_explained():
        from app.lumoe.demo.drawing import draw
        from app.lumoe.demo.world import world

        known = {entity.name.casefold(): entity for entity in world().entities}
        entity = known.get(name.casefold())
        if entity is None:
            examples = ", ".join(e.name for e in world().forgettable[:5])
            give_up(f"the demo world has no entity {name!r}", f"For example: {examples}", Exit.NOT_FOUND)
        paths = [out / f"{entity.key}-{view}.png" for view in range(views)]
        try:
            out.mkdir(parents=True, exist_ok=True)
            for view, path in enumerate(paths):
                draw(entity, view).save(path)
        except OSError as error:
            give_up(f"cannot write to {out}: {error.strerror}", "Choose another directory with --out.")
        if as_json:
            console.print_json(data={"class": entity.klass, "pictures": [str(path) for path in paths]})
            return
        for path in paths:
            console.print(str(path), markup=False, soft_wrap=True)


@app.command("export")
def export_demo_world(
    directory: Path,
    pictures: Annotated[bool, typer.Option("--pictures", help="Draw the pictures too.")] = False,
) -> None:
    """Write the demo world's forget and retain sets in MLUBench's JSON form."""
    with problems_explained():
        from app.lumoe.demo.export import export

        for path in export(directory, pictures=pictures):
            console.print(str(path), markup=False, soft_wrap=True)
