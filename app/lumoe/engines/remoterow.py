"""The tokens of one row that a replica writes, over as many tries as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from app.lumoe.engines.replica import Chunk, ReplicaUnreachableError, RequestRefusedError
from app.lumoe.mllm import MLLM
from app.lumoe.types import Generation


class RemoteRow:
    """Checks that the replica reads the prompt that we mean, and that a later try repeats what has been read.

    Args:
        mllm: our own copy of the model: tokens become text here, never on the replica.
        prompt: the tokens that must be read.
        push: takes one more token; returning false ends the row. None: nobody reads along.
    """

    def __init__(self, mllm: MLLM, prompt: Sequence[int], push: Callable[[int], bool] | None) -> None:
        self._mllm = mllm
        self._prompt = tuple(prompt)
        self._push = push
        self._pushed: list[int] = []

    def read(self, chunks: Iterator[Chunk], url: str) -> Generation:
        """Read one try to its end. Greedy answers repeat themselves: what was handed on is not again.

        Raises `RequestRefusedError`: another prompt, or another beginning than that of an earlier try;
        `ReplicaUnreachableError`: it broke off.
        """
        written: list[int] = []
        known = False
        for chunk in chunks:
            if chunk.prompt_ids is not None:
                if chunk.prompt_ids != self._prompt:
                    raise RequestRefusedError(f"{url} reads other tokens than ours of this conversation")
                known = True
            if chunk.token_ids and not known:
                raise RequestRefusedError(
                    f"{url} does not say what it reads: Lethe needs one with return_token_ids, such as 0.32"
                )
            for token in chunk.token_ids:
                if token in self._mllm.eos_ids:
                    break
                written.append(token)
                if not self._take(written, url):
                    return self._generation(written, "cancelled")
            if chunk.finish_reason in ("stop", "length"):
                for _ in chunks:
                    pass  # to the end, so that the connection can be used again
                return self._generation(written, "stop" if chunk.finish_reason == "stop" else "length")
            if chunk.finish_reason is not None:
                raise ReplicaUnreachableError(f"{url} ended an answer with {chunk.finish_reason!r}")
        raise ReplicaUnreachableError(f"{url} broke off in the middle of an answer")

    def _take(self, written: list[int], url: str) -> bool:
        """Hand on the last token of `written` unless an earlier try has; false when nobody wants more."""
        if self._push is None:
            return True
        at = len(written) - 1
        if at < len(self._pushed):
            if self._pushed[at] != written[at]:
                raise RequestRefusedError(f"{url} goes on otherwise than the replica that broke off")
            return True
        self._pushed.append(written[at])
        return self._push(written[at])

    def _generation(self, tokens: list[int], reason: Literal["stop", "length", "cancelled"]) -> Generation:
        return Generation(self._mllm.decode(tokens), tuple(tokens), reason, len(self._prompt))
