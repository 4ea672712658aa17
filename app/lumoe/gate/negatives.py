"""The negative set: pictures of others, the same for every expert, so that their scores can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from app.lumoe.gate.canonical import canonicalise
from app.lumoe.mllm import MLLM


@dataclass(frozen=True, slots=True)
class NegativeSet:
    """Pictures, the names of whoever each shows (none for pictures of nobody), and their pooled features.

    `pooled`: (n, d) float32 unit vectors. `digest` identifies set and base model.
    """

    images: tuple[Image, ...]
    names: tuple[tuple[str, ...], ...]
    pooled: Tensor
    digest: str

    @classmethod
    def encode(cls, mllm: MLLM, pictures: Sequence[tuple[Image, tuple[str, ...]]]) -> NegativeSet:
        """Run the pictures through the tower, once for all experts."""
        images = tuple(image for image, _ in pictures)
        content = hashlib.sha256(mllm.fingerprint.encode())
        for image in images:
            content.update(repr(image.size).encode() + image.tobytes())
        names = tuple(tuple(canonicalise(name).text for name in names) for _, names in pictures)
        pooled = mllm.encode(images).pooled.float().cpu()
        return cls(images, names, pooled, content.hexdigest()[:16])

    def own(self, aliases: Sequence[str]) -> list[bool]:
        """Return, per picture, whether it shows a bearer of one of the names."""
        wanted = {canonicalise(alias).text for alias in aliases} - {""}
        return [not wanted.isdisjoint(names) for names in self.names]
