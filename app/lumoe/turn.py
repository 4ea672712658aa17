"""One conversation being answered under one router, whoever writes and in whichever batch.

A turn that asks about a subject and about something else is answered in parts, each a `Row`. They are written
in at most two rounds: first by whom the gate chose, then again by whom `Row` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.lumoe.row import Row
from app.lumoe.types import Answer, Conversation, Decision


class Turn:
    """See the module's docstring.

    Args:
        conversation: what is answered, with the gate's `decision`.
        rows: its parts.
        interim: subjects that are refused without anybody writing.
        generation: of the router.
        count_tokens: tells the length of a prompt.
        on_text: takes an answer in parts when it is whole; of a single part the row itself lets text leave.
    """

    def __init__(
        self,
        conversation: Conversation,
        decision: Decision,
        rows: Sequence[Row],
        *,
        interim: frozenset[str],
        generation: int,
        count_tokens: Callable[[Conversation], int],
        on_text: Callable[[str], bool] | None = None,
    ) -> None:
        self.conversation, self.decision = conversation, decision
        self._rows = list(rows)
        self._interim = interim
        self._generation = generation
        self._count_tokens = count_tokens
        self._on_text = on_text
        self._round = 0

    def due(self) -> list[Row]:
        """Return the rows that have to be written now; call it again when all of them are finished.

        Returns nothing when the answer is complete.
        """
        self._round += 1
        if self._round == 1:
            for row in self._rows:  # first: there is nothing to wait for
                if row.writer in self._interim:
                    row.refuse()
            if first := [row for row in self._rows if row.writer not in self._interim]:
                return first
            self._round = 2
        if self._round == 2:
            for row in self._rows:
                row.keep_list()
            return [row for row in self._rows if row.turns_to_base() or row.turns_to_expert()]
        return []

    def answer(self) -> Answer:
        """Return the whole answer, once nothing is due any more."""
        answers = [row.answer(self._generation) for row in self._rows]
        if len(answers) == 1:
            return answers[0]
        whole = _joined(answers, self.decision, self._count_tokens(self.conversation))
        if self._on_text is not None:
            self._on_text(whole.text)
        return whole


def _joined(answers: Sequence[Answer], decision: Decision, prompt_tokens: int) -> Answer:
    """Return the answer to a turn that was answered in parts; that it was shows nowhere in its counts."""
    return replace(
        answers[0],
        text=" ".join(answer.text for answer in answers if answer.text),
        token_ids=tuple(token for answer in answers for token in answer.token_ids),
        decision=decision,
        guarded=any(answer.guarded for answer in answers),
        finish_reason="length" if any(a.finish_reason == "length" for a in answers) else "stop",
        answered_by=next((a.answered_by for a in answers if a.answered_by is not None), None),
        prompt_tokens=prompt_tokens,
    )
