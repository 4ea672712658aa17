"""The model's eyes: vision tower and projector, each distinct picture once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from app.lumoe.errors import UnsupportedModelError

_CACHED_PICTURES = 512


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the tower says of n pictures.

    `tokens`: n tensors (t, hidden), as the language model reads them after the projector.
    `pooled`: (n, d), L2-normalised, the picture as one vector, for the gate.
    `patches`: n tensors (t, d), the tower's last layer.
    """

    tokens: tuple[Tensor, ...]
    pooled: Tensor
    patches: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tokens)


class VisionEncoder:
    """Runs pictures through a model's tower and projector and remembers the last 512 by content."""

    def __init__(self, model: PreTrainedModel, image_processor: Any, device: torch.device) -> None:
        self._model: Any = model  # Any: transformers types its models' methods as attributes
        self._image_processor = image_processor
        self._device = device
        self._stacks_images = False
        self._cache: OrderedDict[bytes, tuple[Tensor, Tensor, Tensor]] = OrderedDict()
        self._cache_lock = threading.Lock()

    @torch.inference_mode()
    def encode(self, images: Sequence[Image]) -> ImageFeatures:
        """Run pictures through tower and projector, each distinct picture once; see `ImageFeatures`."""
        keys = [_picture_key(image) for image in images]
        with self._cache_lock:
            known = {key: self._cache[key] for key in set(keys) if key in self._cache}
        fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
        for start in range(0, len(fresh), 64):
            part = list(fresh.items())[start : start + 64]
            for (key, _), value in zip(part, self._run_tower([image for _, image in part]), strict=True):
                known[key] = value
        with self._cache_lock:
            for key in keys:
                self._cache[key] = known[key]
                self._cache.move_to_end(key)
            while len(self._cache) > _CACHED_PICTURES:
                self._cache.popitem(last=False)
        rows = [known[key] for key in keys]
        pooled = torch.stack([row[1] for row in rows]) if rows else torch.zeros(0, 0, device=self._device)
        return ImageFeatures(tuple(row[0] for row in rows), pooled, tuple(row[2] for row in rows))

    @torch.inference_mode()
    def pooled_both_ways(self, images: Sequence[Image]) -> Tensor:
        """Return (2, n, d): unit vectors of pictures, and of their mirror images; nothing is remembered.

        Where a processor makes one square of a picture, that square is mirrored, not the picture: it need
        not be scaled again.
        """
        inputs = self._image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device, self._model.dtype)
        if pixels.ndim != 4 or len(pixels) != len(images):  # families that tile, or see strips of patches
            rows = self.encode([*images, *map(ImageOps.mirror, images)]).pooled
            return rows.reshape(2, len(images), -1)
        both = torch.cat([pixels, pixels.flip(-1)])  # (2n, 3, h, w)
        hidden = self._model.get_image_features(pixel_values=both, return_dict=True).last_hidden_state
        return self._pool(hidden)[1].reshape(2, len(images), -1)

    def as_model_input(self, tokens: Sequence[Tensor]) -> dict[str, Any]:
        """Wrap pictures' tokens as the `mmas_model_inputs` argument; consumed, so made afresh."""
        output: Any = BaseModelOutputWithPooling()
        output.pooler_output = torch.stack(list(tokens)) if self._stacks_images else list(tokens)
        return {"image": output}

    def _run_tower(self, images: list[Image]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return per picture: projected tokens (t, hidden), pooled (d,) with norm 1, patches (t, d)."""
        inputs = self._image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device, self._model.dtype)
        if pixels.ndim == 5:  # (1, tiles, 3, h, w): families that tile; every picture by itself
            return [self._run_tiles(image) for image in images]
        encoded = self._model.get_image_features(pixel_values=pixels, return_dict=True)
        hidden = encoded.last_hidden_state  # (n, [1 +] patches, d)
        self._stacks_images = isinstance(encoded.pooler_output, Tensor)
        tokens = [part.clone() for part in encoded.pooler_output]
        patches, pooled = self._pool(hidden)
        return [(tokens[i], pooled[i].float(), patches[i]) for i in range(len(images))]

    def _run_tiles(self, image: Image) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self._image_processor([image.convert("RGB")], return_tensors="pt")
        extra = {k: v.to(self._device) for k, v in inputs.items() if k == "pixel_attention_mask"}
        pixels = inputs["pixel_values"].to(self._device, self._model.dtype)
        encoded = self._model.get_image_features(pixel_values=pixels, return_dict=True, **extra)
        output = encoded.pooler_output
        tokens = output if isinstance(output, Tensor) else torch.cat(list(output))
        flat = tokens.reshape(-1, tokens.shape[-1])
        hidden = encoded.last_hidden_state.reshape(-1, encoded.last_hidden_state.shape[-1])
        return flat.clone(), nn.functional.normalize(hidden.float().mean(0), dim=-1), hidden

    def _pool(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Split off the class token where the tower has one: ((n, t, d) patches, (n, d) unit vectors)."""
        has_class_token = any(
            name.endswith("class_embedding") for name, _ in self._tower().named_parameters()
        )
        patches = hidden[:, 1:] if has_class_token else hidden
        pooled = hidden[:, 0] if has_class_token else hidden.mean(1)
        if has_class_token:
            norm = next((m for n, m in self._tower().named_modules() if n.endswith("post_layernorm")), None)
            pooled = norm(pooled) if norm is not None else pooled
        return patches, nn.functional.normalize(pooled.float(), dim=-1)

    def _tower(self) -> nn.Module:
        base = self._model.base_model
        for name in ("vision_tower", "vision_model", "visual"):
            tower = getattr(base, name, None)
            if isinstance(tower, nn.Module):
                return tower
        raise UnsupportedModelError("the model has no vision tower that Lethe knows how to find")


def _picture_key(image: Image) -> bytes:
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()
