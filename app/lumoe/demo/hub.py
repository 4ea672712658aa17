"""The demo checkpoint under the names of the Hugging Face hub, for engines other than transformers.

Transformers 5 writes a LLaVA's tower as ``vision_tower.*``; checkpoints on the hub, and what reads them
elsewhere (vLLM), have ``vision_tower.vision_model.*``. Nothing but the names differs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from safetensors import safe_open
from safetensors.torch import save_file

from app.lumoe.demo.world import CHECKPOINT

_WEIGHTS: Final = "model.safetensors"
_TOWER: Final = "vision_tower."
_TOWER_ON_THE_HUB: Final = "vision_tower.vision_model."


def hub_name(name: str) -> str:
    """Return the name on the hub of a tensor of the demo checkpoint."""
    if name.startswith(_TOWER) and not name.startswith(_TOWER_ON_THE_HUB):
        return _TOWER_ON_THE_HUB + name.removeprefix(_TOWER)
    return name


def export_checkpoint(out: Path, source: Path = CHECKPOINT) -> Path:
    """Write the checkpoint `source` to the directory `out` under the hub's names, and return `out`.

    Raises `FileExistsError` if there are weights already: an engine may have them mapped.
    """
    weights = out / _WEIGHTS
    if weights.exists():
        raise FileExistsError(f"{weights} exists already; choose an empty directory")
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, out / file.name)
    with safe_open(source / _WEIGHTS, "pt") as tensors:
        renamed = {hub_name(name): tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  not a dict
    save_file(renamed, weights, metadata={"format": "pt"})
    return out
