"""What the gate and the guard keep of one subject: tensors in the open, words encrypted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GateRecord:
    """One expert's entry in the gate.

    `prototypes`: (p, d) float32, L2-normalised pooled tower features of the subject's pictures; p may be 0.
    `identity`: (question, answer) pairs with which the base model identifies the subject in a picture.
    `facts`: canonical phrases that the base model tells of the subject and of no neighbour.
    `recognition_threshold`, `recognition_floor`: mean log-likelihood per token of the identity answers given
    the picture, from which the evidence is strong, weak. `picture_threshold`: cosine similarity from which
    the picture alone is strong evidence; `picture_floor`: below it the subject is not even considered.
    """

    aliases: tuple[str, ...]
    klass: str
    prototypes: Tensor
    identity: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]
    recognition_threshold: float
    recognition_floor: float
    picture_threshold: float
    picture_floor: float

    def tensors(self) -> dict[str, Tensor]:
        """Return what goes into `gate.safetensors`."""
        limits = [
            self.recognition_threshold,
            self.recognition_floor,
            self.picture_threshold,
            self.picture_floor,
        ]
        return {
            "prototypes": self.prototypes.contiguous().float().cpu(),
            "limits": torch.tensor(limits, dtype=torch.float64),
        }

    def private_json(self) -> bytes:
        """Return what must be encrypted: everything in words."""
        words = {"aliases": self.aliases, "klass": self.klass, "identity": self.identity, "facts": self.facts}
        return json.dumps(words, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], private: bytes) -> GateRecord:
        """Rebuild a record. Raises KeyError or ValueError if a part is missing or malformed."""
        words = json.loads(private)
        threshold, floor, picture_threshold, picture_floor = tensors["limits"].tolist()
        return cls(
            aliases=tuple(words["aliases"]),
            klass=str(words["klass"]),
            prototypes=tensors["prototypes"],
            identity=tuple((str(q), str(a)) for q, a in words["identity"]),
            facts=tuple(words["facts"]),
            recognition_threshold=threshold,
            recognition_floor=floor,
            picture_threshold=picture_threshold,
            picture_floor=picture_floor,
        )
