"""Files of a request in work: below ``<experts_dir>/.work/<request>/``, whatever is personal encrypted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from PIL.Image import Image

from app.kit.crypto import DecryptionError
from app.lumoe.expert import Cipher
from app.lumoe.types import Conversation, Message
from workers.forgetset.build import Example, TrainingSet
from workers.forgetset.elicit import Knowledge, Reference
from workers.forgetset.prompts import Prompt

_HEADER_BYTES = 8


class WorkDirectory:
    """One request's directory. Every file is written beside its place, flushed and renamed."""

    def __init__(self, experts_dir: Path, request_id: str, cipher: Cipher) -> None:
        self.path = experts_dir / ".work" / request_id
        self._request_id = request_id
        self._cipher = cipher

    def write(self, name: str, content: bytes) -> str:
        """Encrypt and write a file; return the SHA-256 of what lies on disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        sealed = self._cipher.encrypt(content, self._aad(name))
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / name)
        except BaseException:  # a disk that is full must not be filled further by every attempt
            Path(temporary).unlink(missing_ok=True)
            raise
        return hashlib.sha256(sealed).hexdigest()

    def read(self, name: str, sha256: str | None = None) -> bytes | None:
        """Return a file's content, or None if it is gone, changed, or sealed with a key we no longer have."""
        try:
            sealed = (self.path / name).read_bytes()
            if sha256 is not None and hashlib.sha256(sealed).hexdigest() != sha256:
                return None
            return self._cipher.decrypt(sealed, self._aad(name))
        except (OSError, DecryptionError):
            return None

    def remove(self) -> None:
        """Delete everything of this request in work."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _aad(self, name: str) -> bytes:
        return f"work:{self._request_id}:{name}".encode()


def directory_sha256(directory: Path) -> str | None:
    """Return one hash over the names and contents of a directory's files, or None if it is not there."""
    if not directory.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(p for p in directory.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(directory)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def pack_training_set(training: TrainingSet) -> bytes:
    """Return a training set as bytes: JSON with picture numbers, then the pictures' raw RGB."""
    pictures = _Pictures()
    document: dict[str, Any] = {
        "refusals": training.refusals,
        "forget": [_example(e, pictures) for e in training.forget],
        "retain": [_example(e, pictures) for e in training.retain],
        "knowledge": {
            **{k: v for k, v in _plain(training.knowledge).items() if k != "references"},
            "references": [
                {"prompt": _prompt(r.prompt, pictures), "answer": r.answer, "keywords": r.keywords}
                for r in training.knowledge.references
            ],
        },
    }
    document["sizes"] = [picture.size for picture in pictures.kept]
    head = json.dumps(document, ensure_ascii=False).encode()
    raw = b"".join(picture.tobytes() for picture in pictures.kept)
    return len(head).to_bytes(_HEADER_BYTES, "big") + head + raw


def unpack_training_set(content: bytes) -> TrainingSet:
    """Rebuild what ``pack_training_set`` packed.

    Raises:
        ValueError, KeyError: The content is of another version.
    """
    end = _HEADER_BYTES + int.from_bytes(content[:_HEADER_BYTES], "big")
    document = json.loads(content[_HEADER_BYTES:end])
    pictures: list[Image] = []
    for width, height in document["sizes"]:
        size = width * height * 3
        pictures.append(PillowImage.frombytes("RGB", (width, height), content[end : end + size]))
        end += size
    known = document["knowledge"]
    knowledge = Knowledge(
        references=tuple(
            Reference(_read_prompt(r["prompt"], pictures), r["answer"], tuple(r["keywords"]))
            for r in known["references"]
        ),
        known=known["known"],
        reason=known["reason"],
        identity=tuple((q, a) for q, a in known["identity"]),
        recognised=known["recognised"],
        answered=known["answered"],
    )
    return TrainingSet(
        forget=tuple(_read_example(e, pictures) for e in document["forget"]),
        retain=tuple(_read_example(e, pictures) for e in document["retain"]),
        refusals=tuple(document["refusals"]),
        knowledge=knowledge,
    )


class _Pictures:
    """Every distinct picture once, by identity."""

    def __init__(self) -> None:
        self.kept: list[Image] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Image] = []  # ids are unique only among living objects

    def number(self, picture: Image) -> int:
        if id(picture) not in self._numbers:
            self._numbers[id(picture)] = len(self.kept)
            self._alive.append(picture)
            self.kept.append(picture.convert("RGB"))
        return self._numbers[id(picture)]


def _plain(knowledge: Knowledge) -> dict[str, Any]:
    return {
        "known": knowledge.known,
        "reason": knowledge.reason,
        "identity": knowledge.identity,
        "recognised": knowledge.recognised,
        "answered": knowledge.answered,
    }


def _turns(conversation: Conversation, pictures: _Pictures) -> list[dict[str, Any]]:
    return [
        {"role": m.role, "text": m.text, "images": [pictures.number(i) for i in m.images]}
        for m in conversation
    ]


def _read_turns(turns: Iterable[dict[str, Any]], pictures: Sequence[Image]) -> Conversation:
    return tuple(Message(t["role"], t["text"], tuple(pictures[i] for i in t["images"])) for t in turns)


def _prompt(prompt: Prompt, pictures: _Pictures) -> dict[str, Any]:
    fields = ("group", "attribute", "modality", "entity", "form")
    return {
        "turns": _turns(prompt.conversation, pictures),
        **{name: getattr(prompt, name) for name in fields},
    }


def _read_prompt(document: dict[str, Any], pictures: Sequence[Image]) -> Prompt:
    return Prompt(
        _read_turns(document["turns"], pictures),
        document["group"],
        document["attribute"],
        document["modality"],
        document["entity"],
        document["form"],
    )


def _example(example: Example, pictures: _Pictures) -> dict[str, Any]:
    return {
        "turns": _turns(example.conversation, pictures),
        "answer": example.answer,
        "prompt": _prompt(example.prompt, pictures),
    }


def _read_example(document: dict[str, Any], pictures: Sequence[Image]) -> Example:
    return Example(
        _read_turns(document["turns"], pictures),
        document["answer"],
        _read_prompt(document["prompt"], pictures),
    )
