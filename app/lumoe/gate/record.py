"""What the gate and the guard keep of one subject: tensors in the open, words encrypted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class NegativeScores:
    """How one expert's gate scores the pictures of a negative set, in the set's order.

    `digest` names the set. `recognition`: (n,) log-likelihood in nats that the base model names the subject
    in the picture, -inf where it would not be asked. `likeness`: (n,) cosine similarity to the nearest
    prototype. A picture of the subject itself has +inf in both.
    """

    digest: str = ""
    recognition: Tensor = field(default_factory=lambda: torch.zeros(0))
    likeness: Tensor = field(default_factory=lambda: torch.zeros(0))


@dataclass(frozen=True, slots=True)
class GateRecord:
    """One expert's entry in the gate.

    `prototypes`: (p, d) float32 unit vectors, centres of the subject's pictures in pooled tower features; p
    may be 0. `identity`: (question, beginning of the answer) pairs: how the base model identifies the subject
    in a picture, up to and including the name; empty if it does not. `facts`: canonical phrases that the
    base model tells of the subject and of no neighbour. `hints`: canonical words and phrases that it tells
    of the subject, and perhaps of others.
    `refusals`: what the expert was taught to say; empty if that is not known.
    `picture_floor`: cosine similarity below which the base model is not asked about a picture.
    `rivals`: (r, d) pooled features of the pictures in the negative set that are most like the prototypes,
    and `nearness`, the least that a view of the subject has (`app.lumoe.gate.nearness`): they narrow down
    whom to ask about; no rivals and -inf where only `picture_floor` is known.
    `recognition_own`: log-likelihood of the identity, in nats, from which a picture is the subject's, in
    place of the gate's threshold; -inf for most, who take the gate's. `alike`: cosine similarity from which
    the picture alone decides; +inf for subjects that the base model knows, since what it does not recognise
    it cannot give away.
    """

    aliases: tuple[str, ...]
    klass: str
    prototypes: Tensor
    identity: tuple[tuple[str, str], ...] = ()
    facts: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    picture_floor: float = _NEVER
    recognition_own: float = -_NEVER
    alike: float = _NEVER
    negatives: NegativeScores = field(default_factory=NegativeScores)
    rivals: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    nearness: float = -_NEVER

    def tensors(self) -> dict[str, Tensor]:
        """Return what goes into `gate.bin`."""
        limits = [self.picture_floor, self.recognition_own, self.alike, self.nearness]
        return {
            "prototypes": self.prototypes.contiguous().float().cpu(),
            "rivals": self.rivals.contiguous().half().cpu(),
            "limits": torch.tensor(limits, dtype=torch.float64),
            "negatives.recognition": self.negatives.recognition.contiguous().float().cpu(),
            "negatives.likeness": self.negatives.likeness.contiguous().float().cpu(),
        }

    def private_json(self) -> bytes:
        """Return what must be encrypted: everything in words."""
        words = {
            "aliases": self.aliases,
            "klass": self.klass,
            "identity": self.identity,
            "facts": self.facts,
            "hints": self.hints,
            "refusals": self.refusals,
            "negatives": self.negatives.digest,
        }
        return json.dumps(words, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], private: bytes) -> GateRecord:
        """Rebuild a record. Raises KeyError or ValueError if a part is missing or malformed."""
        words = json.loads(private)
        floor, least, alike, nearness = tensors["limits"].tolist()
        return cls(
            aliases=tuple(words["aliases"]),
            klass=str(words["klass"]),
            prototypes=tensors["prototypes"],
            identity=tuple((str(q), str(a)) for q, a in words["identity"]),
            facts=tuple(words["facts"]),
            hints=tuple(words["hints"]),
            refusals=tuple(words["refusals"]),
            picture_floor=floor,
            recognition_own=least,
            alike=alike,
            negatives=NegativeScores(
                str(words["negatives"]), tensors["negatives.recognition"], tensors["negatives.likeness"]
            ),
            rivals=tensors["rivals"].float(),
            nearness=nearness,
        )
