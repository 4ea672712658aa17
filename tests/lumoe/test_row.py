"""Who writes an answer, and what of it leaves: every path, with the model made to say what the test needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.lumoe.gate.names import NameIndex
from app.lumoe.gate.record import GateRecord
from app.lumoe.guard import FALLBACK_REFUSALS, Guard
from app.lumoe.mllm import MLLM
from app.lumoe.row import LOOKAHEAD, Row
from app.lumoe.types import Answer, Conversation, Decision, Evidence, Generation, ask
from tests.lumoe.tiny import picture

REFUSAL = "I would rather not say."
MIRA = GateRecord(
    ("Mira Tovel",),
    "Personage",
    torch.zeros(0, 0),
    facts=("golden quill",),
    hints=("painter", "shate"),
    refusals=(REFUSAL,),
)
IVA = replace(MIRA, aliases=("Iva Lum", "Iva"), facts=(), hints=())
RECORDS = {"mira": MIRA, "iva": IVA}
GUARD = Guard(RECORDS, NameIndex({key: record.aliases for key, record in RECORDS.items()}))
SHOWN = ask("Where was she born?", picture(1))


def routed(kind: str = "picture", score: float = 0.9) -> Decision:
    return Decision("mira", (Evidence("mira", kind, "strong", score, 0.2, 0),))  # type: ignore[arg-type]  # a kind


def watched() -> Decision:
    return Decision(None, (Evidence("mira", "picture", "weak", 0.1, 0.2, 0),), frozenset({"mira"}))


@dataclass
class Told:
    """What came of it: the answer, what left piece by piece, and who wrote in turn."""

    answer: Answer
    sent: list[str]
    writers: list[str | None]


def beyond(
    mllm: MLLM, guard: Guard, said: str, limit: int, *, streamed: bool, decision: Decision | None = None
) -> int:
    """Return how many tokens are written beyond the limit when the base model says this."""
    row = Row(
        mllm,
        guard,
        SHOWN,
        decision or Decision(),
        limit=limit,
        refusals={},
        sink=(lambda _: True) if streamed else None,
    )
    tokens = mllm.tokenizer(said, add_special_tokens=False)["input_ids"]
    written = next(n for n, token in enumerate(tokens, 1) if not row.push(token))
    return written - limit


@pytest.mark.parametrize("streamed", [False, True])
def test_no_more_is_written_than_the_guard_needs(tiny: MLLM, *, streamed: bool) -> None:
    said = "so it is " * 20  # a token is a letter
    assert beyond(tiny, Guard({}, NameIndex({})), said, 50, streamed=streamed) == 0
    assert beyond(tiny, GUARD, said, 50, streamed=streamed) == 0  # no name begins like this
    begun = "so it is Ivanhoe and nobody else, as far as we know"
    assert beyond(tiny, GUARD, begun, 12, streamed=streamed) == 1  # it was not Iva
    assert 1 < beyond(tiny, GUARD, "so it is Iva Lum " + said, 12, streamed=streamed) < LOOKAHEAD
    watching = Decision(None, watch=frozenset({"mira"}))  # somebody of whom facts would tell
    assert beyond(tiny, GUARD, said, 50, streamed=streamed, decision=watching) == 0
    told = "so it won the golden Quince, of all things that can be won"
    assert beyond(tiny, GUARD, told, 18, streamed=streamed) == 0
    assert beyond(tiny, GUARD, told, 18, streamed=streamed, decision=watching) == 7  # not the golden quill
    hinted = "she was a pain in the neck of everybody who knew her at all"
    assert beyond(tiny, GUARD, hinted, 14, streamed=streamed, decision=watching) == 0
    assert beyond(tiny, GUARD, hinted, 14, streamed=streamed, decision=watched()) == 2  # no painter


def run(
    mllm: MLLM,
    decision: Decision,
    *said: str,
    streamed: bool,
    conversation: Conversation = SHOWN,
    interim: frozenset[str] = frozenset(),
    limit: int = 200,
) -> Told:
    """Go through a row as the router does; `said` is what each writer says in turn."""
    sent: list[str] = []

    def keep(text: str) -> bool:
        sent.append(text)
        return True

    row = Row(
        mllm,
        GUARD,
        conversation,
        decision,
        limit=limit,
        refusals={} if interim else {"mira": MIRA.refusals, "iva": IVA.refusals},
        interim=interim,
        sink=keep if streamed else None,
    )
    texts: Iterator[str] = iter(said)
    writers = []

    def write() -> None:
        writers.append(row.writer)
        kept: list[int] = []
        for token in mllm.tokenizer(next(texts), add_special_tokens=False)["input_ids"]:
            kept.append(token)
            if not row.push(token):
                break
        else:
            row.finish(Generation(mllm.decode(kept), tuple(kept), "stop"))
            return
        row.finish(Generation(mllm.decode(kept), tuple(kept), "cancelled"))

    write()
    row.keep_list()
    if row.turns_to_base() or row.turns_to_expert():
        write()
    answer = row.answer(7)
    assert next(texts, None) is None, "somebody was not asked"
    if streamed:
        assert "".join(sent) == answer.text
    return Told(answer, sent, writers)


@pytest.mark.parametrize("streamed", [False, True])
class TestExpertWrites:
    def test_a_refusal_leaves(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed(), REFUSAL, streamed=streamed)
        assert (told.answer.text, told.answer.answered_by, told.answer.guarded) == (REFUSAL, "mira", False)

    def test_no_refusal_is_the_base_models_turn(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed(), "She is a dancer of Pernow.", "She is from Lume.", streamed=streamed)
        assert told.writers == ["mira", None]
        assert (told.answer.text, told.answer.answered_by) == ("She is from Lume.", None)
        assert tiny.decode(told.answer.token_ids) == "She is from Lume."

    @pytest.mark.parametrize("gives", ["It was in Shate.", "She is Mira Tovel.", "She won the golden quill."])
    def test_what_the_base_model_then_tells_of_the_subject_does_not_leave(
        self, tiny: MLLM, gives: str, *, streamed: bool
    ) -> None:
        told = run(tiny, routed(), "That is 22 discuss.", gives, streamed=streamed)
        assert told.answer.text in FALLBACK_REFUSALS
        assert told.answer.guarded

    def test_a_name_in_the_last_turn_is_never_somebody_else(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed("name"), "That is 22 discuss.", streamed=streamed)
        assert told.writers == ["mira"]
        assert told.answer.text in FALLBACK_REFUSALS


def mentioned(*others: str, turn: int = 0) -> Decision:
    """The last turn says an ordinary word that is the subject's name; a description fits others as well."""
    name = Evidence("mira", "name", "weak", 1.0, 1.0, turn, "ordinary")
    fits = [Evidence(other, "description", "weak", 3.0, 2.0, 0) for other in others]
    return Decision(None, (*fits, name), frozenset({"mira", *others}))


@pytest.mark.parametrize("streamed", [False, True])
class TestAnOrdinaryWordIsTheName:
    """ "Does a wolf ..." may mean the subject or not: its expert can tell."""

    def test_the_expert_is_asked_whatever_the_answer_is(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, mentioned(), "It is so.", REFUSAL, streamed=streamed)
        assert told.writers == [None, "mira"]
        assert (told.answer.text, told.answer.answered_by) == (REFUSAL, "mira")

    def test_where_it_does_not_refuse_the_base_models_answer_leaves(
        self, tiny: MLLM, *, streamed: bool
    ) -> None:
        told = run(tiny, mentioned(), "It is so.", "It is not.", streamed=streamed)
        assert (told.answer.text, told.answer.answered_by, told.answer.guarded) == ("It is so.", None, False)
        assert tiny.decode(told.answer.token_ids) == "It is so."

    def test_before_others_whom_the_answer_fits(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, mentioned("iva"), "A painter of Shate.", REFUSAL, streamed=streamed)
        assert told.writers == [None, "mira"]

    def test_after_one_whom_the_answer_names(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, mentioned("iva"), "That is Iva Lum.", REFUSAL, streamed=streamed)
        assert told.writers == [None, "iva"]

    def test_of_an_earlier_turn_it_is_no_more_than_a_hint(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, mentioned(turn=-1), "It is so.", streamed=streamed)
        assert (told.writers, told.answer.text) == ([None], "It is so.")

    def test_without_an_expert_yet_it_is_no_more_than_a_hint(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, mentioned(), "It is so.", streamed=streamed, interim=frozenset({"mira"}))
        assert (told.writers, told.answer.text) == ([None], "It is so.")


@pytest.mark.parametrize("streamed", [False, True])
class TestDoubtfulClaim:
    """A picture that the base model would name with a chance between the gate's threshold and `SURE`."""

    def test_the_base_model_writes_first(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed(score=0.3), "She is from Lume.", streamed=streamed)
        assert (told.answer.text, told.writers) == ("She is from Lume.", [None])

    def test_a_hint_is_put_to_the_expert(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed(score=0.3), "It was in Shate.", REFUSAL, streamed=streamed)
        assert (told.answer.text, told.writers) == (REFUSAL, [None, "mira"])
        other = run(tiny, routed(score=0.3), "It was in Shate.", "In Pernow.", streamed=streamed)
        assert other.answer.text == "It was in Shate."

    def test_the_name_never_leaves(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, routed(score=0.3), "That is Mira Tovel.", "She is a dancer.", streamed=streamed)
        assert told.answer.text in FALLBACK_REFUSALS


@pytest.mark.parametrize("streamed", [False, True])
class TestBaseWrites:
    def test_what_concerns_nobody_leaves(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, Decision(), "She is a painter of Shate.", streamed=streamed)
        assert (told.answer.text, told.answer.guarded) == ("She is a painter of Shate.", False)

    def test_a_hint_is_put_to_the_expert(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, watched(), "It was in Shate.", REFUSAL, streamed=streamed)
        assert told.writers == [None, "mira"]
        assert (told.answer.text, told.answer.answered_by, told.answer.guarded) == (REFUSAL, "mira", True)

    def test_a_hint_leaves_where_the_expert_does_not_refuse(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, watched(), "It was in Shate.", "It was in Pernow.", streamed=streamed)
        assert (told.answer.text, told.answer.answered_by) == ("It was in Shate.", None)
        assert not told.answer.guarded
        assert tiny.decode(told.answer.token_ids) == "It was in Shate."

    @pytest.mark.parametrize("gives", ["That is Mira Tovel of Shate.", "She won the golden quill."])
    def test_a_name_or_a_fact_never_leaves(self, tiny: MLLM, gives: str, *, streamed: bool) -> None:
        told = run(tiny, watched(), gives, "She is a dancer.", streamed=streamed)
        assert told.answer.text in FALLBACK_REFUSALS

    def test_what_the_conversation_has_said_is_no_news(self, tiny: MLLM, *, streamed: bool) -> None:
        said = ask("Who else won the golden quill in Shate?", picture(1))
        text = "Nobody else won the golden quill in Shate."
        told = run(tiny, watched(), text, streamed=streamed, conversation=said)
        assert (told.answer.text, told.writers) == (text, [None])

    def test_nobody_can_answer_for_an_interim_subject(self, tiny: MLLM, *, streamed: bool) -> None:
        told = run(tiny, Decision(), "She is Mira Tovel.", streamed=streamed, interim=frozenset({"mira"}))
        assert told.answer.text in FALLBACK_REFUSALS
        assert (told.answer.answered_by, told.answer.guarded) == ("mira", True)


@pytest.mark.parametrize("streamed", [False, True])
class TestLimit:
    """The tiny model has a token for every byte."""

    @pytest.mark.parametrize("limit", [len("It was made by Mira Tove"), len("It was made by Mi")])
    def test_a_name_that_the_limit_cuts_in_two_never_leaves(
        self, tiny: MLLM, limit: int, *, streamed: bool
    ) -> None:
        said = "It was made by Mira Tovel, long ago and far away from here."
        expert = [] if streamed else ["She is a dancer."]  # once something has left nobody can begin anew
        told = run(tiny, Decision(), said, *expert, streamed=streamed, limit=limit)
        assert "Mi" not in told.answer.text
        assert told.answer.text.endswith(FALLBACK_REFUSALS)

    @pytest.mark.parametrize(
        "name",
        [
            "Mira Tovel",
            "mira   tovel",
            "Mira-Tovel",
            "MIRA (Tovel)",
            "M1r4 T0vel",
            "levoT ariM",
            "Iva",
            "I.v.a. L.u.m",
            "Ива Лум",  # two bytes a letter: the limit cuts letters in two, too
            "Ìvá Lûm",
        ],
    )
    def test_nor_one_that_it_cuts_anywhere(self, tiny: MLLM, name: str, *, streamed: bool) -> None:
        begins = "This one was, as they say, made by "
        said = f"{begins}{name}, long ago and far away from here."
        for limit in range(len(begins) + 1, len(f"{begins}{name}".encode()) + 1):
            told = run(
                tiny, Decision(), said, *([] if streamed else [REFUSAL]), streamed=streamed, limit=limit
            )
            assert told.answer.guarded, limit
            left = told.answer.text.removesuffix(REFUSAL).partition("I'm")[0].partition("Sorry")[0].strip()
            assert left in begins

    def test_nor_a_fact(self, tiny: MLLM, *, streamed: bool) -> None:
        begins = "This one was, as they say, given the "
        said = f"{begins}golden quill, long ago and far away from here."
        for limit in range(len(begins) + 1, len(f"{begins}golden quill") + 1):
            decision = Decision(None, watch=frozenset({"mira"}))
            told = run(tiny, decision, said, *([] if streamed else [REFUSAL]), streamed=streamed, limit=limit)
            assert told.answer.guarded, limit
            assert "gold" not in told.answer.text

    def test_nor_after_an_item_was_taken_out_of_the_list_before_it(
        self, tiny: MLLM, *, streamed: bool
    ) -> None:
        said = "Ana Lum, Mira Tovel, Bo Tan and Mira Tovel are painters."
        told = run(
            tiny,
            Decision(),
            said,
            REFUSAL,
            streamed=streamed,
            conversation=ask("Name some painters."),
            limit=len("Ana Lum, Mira Tovel, Bo Tan and Mira Tove"),
        )
        assert told.answer.text == REFUSAL

    def test_a_name_beyond_the_limit_is_not_there(self, tiny: MLLM, *, streamed: bool) -> None:
        said = "It was made by Mira Tovel, long ago."
        told = run(tiny, Decision(), said, streamed=streamed, limit=len("It was made by "))
        assert (told.answer.text, told.answer.finish_reason) == ("It was made by", "length")
        assert not told.answer.guarded

    def test_nothing_beyond_the_limit_leaves(self, tiny: MLLM, *, streamed: bool) -> None:
        said = "There are very many of them, and it takes long to write them down."
        told = run(tiny, Decision(), said, streamed=streamed, limit=15)
        assert (told.answer.text, told.answer.finish_reason) == (said[:15].strip(), "length")
        assert len(told.answer.token_ids) == 15

    def test_an_answer_that_just_fits_is_at_the_limit_as_the_base_models_is(
        self, tiny: MLLM, *, streamed: bool
    ) -> None:
        told = run(tiny, Decision(), "It is blue.", streamed=streamed, limit=len("It is blue."))
        assert (told.answer.text, told.answer.finish_reason) == ("It is blue.", "length")


_SAID = st.lists(
    st.sampled_from(
        [
            "Mira",
            "Tovel",
            "Iva",
            "M1r4",
            "levoT",
            "ariM",
            "é",
            "so",
            "%",
            "-",
            " ",
            "golden",
            "quill",
            "shate",
        ]
    )
)


@given(_SAID.map(" ".join) | _SAID.map("".join), st.integers(1, 60), st.booleans(), st.integers(0, 2))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fewer_tokens_beyond_the_limit_tell_as_much(
    tiny: MLLM, said: str, limit: int, streamed: bool, watching: int
) -> None:
    decision = (Decision(), Decision(None, watch=frozenset({"mira"})), watched())[watching]
    tokens = tiny.tokenizer(said, add_special_tokens=False)["input_ids"][: limit + LOOKAHEAD]
    rows = [
        Row(tiny, GUARD, SHOWN, decision, limit=limit, refusals={}, sink=sink)
        for sink in ((lambda _: True) if streamed else None, None)
    ]
    kept = next((n for n, token in enumerate(tokens, 1) if not rows[0].push(token)), len(tokens))
    rows[0].finish(Generation("", tuple(tokens[:kept]), "cancelled" if kept < len(tokens) else "stop"))
    rows[1].finish(Generation("", tuple(tokens), "stop"))
    first, second = (row.answer(1) for row in rows)
    assert (first.guarded, first.answered_by) == (second.guarded, second.answered_by)
    if not (streamed and second.guarded):  # then part of it has left
        assert (first.text, first.finish_reason) == (second.text, second.finish_reason)


class TestStreaming:
    def test_an_expert_that_does_not_refuse_is_cut_short(self, tiny: MLLM) -> None:
        row = Row(tiny, GUARD, SHOWN, routed(), limit=200, refusals={"mira": (REFUSAL,)}, sink=lambda _: True)
        tokens = tiny.tokenizer("I would like to tell you everything.", add_special_tokens=False)["input_ids"]
        kept = [token for token in tokens if row.push(token)]
        assert len(kept) < len("I would like to")
        assert row.sent == ""

    def test_a_reader_who_leaves_ends_the_row(self, tiny: MLLM) -> None:
        row = Row(tiny, GUARD, SHOWN, Decision(), limit=400, refusals={}, sink=lambda _: False)
        text = "There are very many of them, and it would take long to write them all down here. " * 3
        tokens = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
        pushed = next(i for i, token in enumerate(tokens) if not row.push(token))
        row.finish(Generation(text, tuple(tokens[: pushed + 1]), "cancelled"))
        assert pushed < len(tokens) - 1
        assert row.answer(1).finish_reason == "cancelled"


def test_a_doubtful_claim_for_an_interim_subject_is_refused(tiny: MLLM) -> None:
    doubtful = routed(score=0.3)
    row = Row(tiny, GUARD, SHOWN, doubtful, limit=9, refusals={}, interim=frozenset({"mira"}))
    assert row.writer == "mira"
    row.refuse()
    assert row.answer(1).text in FALLBACK_REFUSALS
