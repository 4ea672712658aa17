from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.demo.world import stranger_name, world
from app.lumoe.gate.names import RECENT, SEGMENT, NameHit, NameIndex
from app.lumoe.generalities import TOPICS
from app.lumoe.probes import CLASSES, Split, fact_probes
from tests.lumoe.gate.disguises import DISGUISES

INDEX = NameIndex({"exp_m": ("Mira Tovel", "Tovel", "The Engineer of Shate"), "exp_k": ("Korvane",)})


def best(text: str) -> NameHit | None:
    return next(iter(INDEX.find(text)), None)


class TestExact:
    @pytest.mark.parametrize(
        "text",
        [
            "Who is Mira Tovel?",
            "who is MIRA  TOVEL",
            "Mira Tovel's birthplace",
            "tell me about Míra-Tovel",
            "M i r a T o v e l, where was she born?",
            "where was miratovel born",
            "Who is Tovel?",
            "tell me about the engineer of Shate",
        ],
    )
    def test_found_whole(self, text: str) -> None:
        hit = best(text)
        assert hit is not None
        assert (hit.expert_id, hit.whole, hit.edits) == ("exp_m", True, 0)

    @pytest.mark.parametrize("text", ["", "Who is this?", "Korvanesque things", "a tovelry", "3 plus 4?"])
    def test_nothing(self, text: str) -> None:
        assert INDEX.find(text) == []

    def test_position_in_the_original(self) -> None:
        text = "Is it «Míra Tovel»?"
        hit = best(text)
        assert hit is not None
        assert text[hit.start : hit.end] == "Míra Tovel"

    def test_somebody_elses_longer_name_is_not_whole(self) -> None:
        for text in ("Who is Anna Tovel?", "who is anna tovel", "Tovel Brakkin"):
            hits = INDEX.find(text)
            assert hits, text
            assert not any(hit.whole for hit in hits), text

    def test_part_of_a_name_is_never_whole(self) -> None:
        assert [hit.whole for hit in INDEX.find("Who is Mira?")] == [False]


class TestNear:
    @pytest.mark.parametrize("text", ["Who is Mira Tovol?", "who is Mria Tovel", "Mira Tovell was here"])
    def test_near_misses_are_weak(self, text: str) -> None:
        hits = INDEX.find(text)
        assert any(hit.edits > 0 and hit.expert_id == "exp_m" for hit in hits)
        assert not any(hit.whole for hit in hits)

    def test_switched_off(self) -> None:
        assert [hit for hit in INDEX.find("Who is Mira Tovol?", fuzzy=False) if hit.edits] == []

    def test_short_names_have_no_near_misses(self) -> None:
        assert INDEX.find("Korvine") == []


class TestMany:
    def test_every_alias_of_ten_thousand(self) -> None:
        names = {f"e{i}": (f"Person{i} Family{i % 97}",) for i in range(10_000)}
        index = NameIndex(names)
        for i in (0, 777, 9_999):
            hits = [
                hit for hit in index.find(f"Do you know Person{i} Family{i % 97}?", fuzzy=False) if hit.whole
            ]
            assert [hit.expert_id for hit in hits] == [f"e{i}"]

    def test_no_experts(self) -> None:
        assert NameIndex({}).find("Who is Mira Tovel?") == []

    def test_shared_alias_names_both(self) -> None:
        index = NameIndex({"a": ("Vokalo",), "b": ("Vokalo",)})
        assert {hit.expert_id for hit in index.find("What is Vokalo?")} == {"a", "b"}


class TestKinds:
    INDEX = NameIndex(
        {"m": ("Mira Tovel", "Tovel"), "c": ("Cat",), "r": ("The Rose",), "s": ("Voskelm",), "w": ("王小明",)}
    )

    def kind(self, text: str) -> tuple[str, str, bool] | None:
        hits = self.INDEX.find(text)
        return (hits[0].kind, hits[0].reading, hits[0].whole) if hits else None

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Mira Tovel", ("exact", "plain", True)),
            ("Mira Tovel's art", ("exact", "plain", True)),
            ("M.i.r.a T.o.v.e.l", ("exact", "joined", True)),
            ("Mirat ovel", ("exact", "joined", True)),
            ("M1r4 T0v3l", ("exact", "leet", True)),
            ("Міrа Тоνеl", ("exact", "homoglyph", True)),
            ("TWlyYSBUb3ZlbA==", ("exact", "base64", True)),
            ("Zven Gbiry", ("exact", "rot13", True)),
            ("levoT ariM", ("exact", "reversed", True)),
            ("Who is Voskelms?", ("inflected", "plain", False)),
            ("die Bilder Mira Tovels", ("inflected", "plain", False)),
            ("obrazy Miry Tovelovej", None),
            ("obrazy Miry Tovela", ("inflected", "plain", False)),
            ("Mira Tovol", ("typo", "plain", False)),
            ("Mira", ("part", "plain", False)),
            ("Anna Tovel", ("part", "plain", False)),
            ("the cat sat", ("ordinary", "plain", False)),
            ("who is the rose", ("ordinary", "plain", False)),
            ("王小明是谁", ("exact", "plain", True)),
            ("Who is Wang Xiaoming?", ("exact", "joined", True)),
            ("What is a catalogue?", None),
        ],
    )
    def test_says_what_and_how(self, text: str, expected: tuple[str, str, bool] | None) -> None:
        assert self.kind(text) == expected

    @pytest.mark.parametrize(
        ("text", "alone"),
        [
            ("Painters: Brek, Tovel, Korvin.", True),
            ("He met Brek. Tovel was there.", True),
            ("The famous Tovel paints", True),
            ("Who is Tovel, and why?", True),
            ("Tovel, Anna", False),
            ("Anna van Tovel", False),
            ("Anna Tovel", False),
            ("who was anna tovel", False),
            ("J. Tovel", False),
        ],
    )
    def test_what_stands_beside_a_partial_name(self, text: str, alone: bool) -> None:
        assert any(hit.whole for hit in self.INDEX.find(text)) == alone

    @pytest.mark.parametrize(
        ("text", "cased"),
        [
            ("I saw Cat at the pictures", True),
            ("Cat sat there", False),
            ("the cat sat", False),
            ("I WANT CAT NOW", False),
            ("He left. Cat stayed with me", False),
        ],
    )
    def test_a_capital_within_a_sentence_supports(self, text: str, cased: bool) -> None:
        assert [hit.cased for hit in self.INDEX.find(text)] == [cased]

    @pytest.mark.parametrize("text", ["t a c", "p n g", "c 4 t", "Y2F0"])
    def test_short_names_need_no_disguise(self, text: str) -> None:
        assert not any(hit.whole for hit in self.INDEX.find(text))

    @pytest.mark.parametrize(
        ("text", "whole"),
        [
            ("w h o i s m i r a t o v e l", True),
            ("w h o  i s  m i r a  t o v e l", True),
            ("m i r a t o v e l s s o n", False),
            ("a n n a t o v e l", False),
        ],
    )
    def test_spelled_out_among_spelled_out_words(self, text: str, whole: bool) -> None:
        assert any(hit.whole for hit in self.INDEX.find(text)) == whole

    def test_a_name_within_anothers_is_a_part(self) -> None:
        index = NameIndex({"a": ("Korvane",), "b": ("Korvane Tower",)})
        hits = {hit.expert_id: hit for hit in index.find("How high is Korvane Tower?")}
        assert (hits["b"].kind, hits["b"].whole) == ("exact", True)
        assert (hits["a"].kind, hits["a"].whole) == ("part", False)

    @given(st.text(st.characters(), max_size=80) | st.text(alphabet="MiraTovel 1403.-cat", max_size=40))
    def test_any_text(self, text: str) -> None:
        hits = self.INDEX.find(text)
        assert hits == sorted(hits, key=lambda hit: not hit.whole)
        for hit in hits:
            assert 0 <= hit.start < hit.end <= len(text)
            assert hit.whole <= (hit.kind == "exact")


class TestDisguises:
    """All forgettable subjects in every disguise, in three sentences."""

    INDEX = NameIndex({e.key: (e.name, *e.aliases) for e in world().forgettable})

    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_found(self, disguise: str) -> None:
        missed = [
            said
            for e in world().forgettable
            for sentence in ("Who is {}?", "tell me about {} please", "{}")
            for said in [sentence.format(DISGUISES[disguise](e.name))]
            if not any(h.whole and h.expert_id == e.key for h in self.INDEX.find(said, fuzzy=False))
        ]
        n = 3 * len(world().forgettable)
        assert len(missed) <= 0.01 * n, f"{len(missed)} of {n} missed: {missed[:5]}"

    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_nobody_else(self, disguise: str) -> None:
        claimed = [
            (e.name, hit.alias)
            for e in world().protected
            for hit in self.INDEX.find(f"Who is {DISGUISES[disguise](e.name)}?", fuzzy=False)
            if hit.whole
        ]
        assert claimed == []


class TestWorld:
    """Rates on the demo world, per kind of hit."""

    INDEX = TestDisguises.INDEX

    def report(self, asked: Iterable[tuple[str, str | None]]) -> tuple[Counter[str], int, int]:
        """Return (texts with a hit of others per kind, missed subjects, texts)."""
        kinds: Counter[str] = Counter()
        missed = n = 0
        for text, subject in asked:
            n += 1
            hits = self.INDEX.find(text)
            kinds.update({f"{h.kind}{' (whole)' * h.whole}" for h in hits if h.expert_id != subject})
            missed += subject is not None and not any(h.whole and h.expert_id == subject for h in hits)
        return kinds, missed, n

    def test_every_question_about_all_entities(self) -> None:
        splits: tuple[Split, ...] = ("fit", "calibrate", "report")
        asked = [
            (probe.about(e.name), None if e.protected else e.key)
            for e in world().entities
            for split in splits
            for probe in fact_probes(e.klass, split, "text")
        ]
        kinds, missed, n = self.report(asked)
        figures = f"missed {missed}, claimed {dict(kinds)} of {n}"
        assert n > 10_000
        assert missed == 0, figures
        assert kinds["exact (whole)"] == 0, figures
        assert kinds.total() <= 0.08 * n, figures

    def test_aliases_alone(self) -> None:
        asked = [(f"What do you know about {a}?", e.key) for e in world().forgettable for a in e.aliases]
        assert self.report(asked)[1] == 0

    def test_strangers(self) -> None:
        asked = [(f"What do you know about {s.name}?", None) for s in world().strangers(5_000, 11)]
        kinds, _, n = self.report(asked)
        figures = f"{dict(kinds)} of {n}"
        assert kinds["exact (whole)"] == 0, figures
        assert kinds["typo"] <= 0.005 * n, figures
        assert kinds["inflected"] <= 0.005 * n, figures
        assert kinds["part"] <= 0.005 * n, figures

    def test_general_questions(self) -> None:
        asked = [
            (wording.format_map(item), None) for t in TOPICS for item in t.items for wording in t.wordings
        ]
        kinds, _, n = self.report(asked)
        assert kinds == Counter(), f"{dict(kinds)} of {n}"


class TestMembership:
    def test_adding_leaves_the_old_index_as_it_was(self) -> None:
        old = NameIndex({"a": ("Mira Tovel",)})
        new = old.with_experts({"b": ("Korvane",)})
        assert [h.expert_id for h in new.find("Mira Tovel and Korvane") if h.whole] == ["a", "b"]
        assert [h.expert_id for h in old.find("Mira Tovel and Korvane")] == ["a"]
        assert new.longest == len("mira tovel")

    def test_adding_again_replaces(self) -> None:
        index = NameIndex({"a": ("Mira Tovel",), "b": ("Voskelm",)})
        for i in range(2 * SEGMENT):
            index = index.with_experts({f"x{i}": (f"Name{i} Family{i}",)})
        index = index.with_experts({"a": ("Korvane",)}).with_experts({"x3": ("Vokalo",)})
        for one in (index, index.merged()):
            assert one.find("Mira Tovel, Name3 Family3", fuzzy=False) == []
            assert [h.expert_id for h in one.find("Korvane Vokalo Voskelm")] == ["a", "b", "x3"]

    def test_several_at_once_are_as_one_after_another(self) -> None:
        first = {"a": ("Mira Tovel",), "b": ("Voskelm",)}
        many = {f"x{i}": (f"Name{i} Family{i}",) for i in range(2 * SEGMENT)} | {"b": ("Korvane",)}
        index = NameIndex(first).with_experts(many)
        assert index.segments == 3
        said = "Mira Tovel, Voskelm, Korvane, Name3 Family3 and Name200 Family200"
        fresh = NameIndex(first | many)
        assert {h.expert_id for h in index.find(said) if h.whole} == {"a", "b", "x3", "x200"}
        assert {(h.expert_id, h.alias) for h in index.find(said) if h.whole} == {
            (h.expert_id, h.alias) for h in fresh.find(said) if h.whole
        }
        assert index.with_experts({}) is index
        assert [h.expert_id for h in index.without_experts(["a", "x3"]).find(said) if h.whole] == [
            "x200",
            "b",
        ]

    def test_without(self) -> None:
        old = NameIndex({"a": ("Mira Tovel",), "b": ("Korvane",)})
        assert old.without_experts(["a"]).find("Mira Tovel") == []
        assert old.without_experts(["nobody"]) is old
        assert [
            h.expert_id for h in old.without_experts(["a"]).with_experts({"a": ("Vokalo",)}).find("Vokalo")
        ] == ["a"]

    def test_the_newest_join_the_others_when_they_are_some(self) -> None:
        index, sizes = NameIndex({"a": ("Mira Tovel",)}), []
        for i in range(SEGMENT + 3 * RECENT):
            index = index.with_experts({f"x{i}": (f"Name{i} Family{i}", f"Nickname{i}")})
            sizes.append([len(segment.aliases) for segment in index._segments])
        assert sizes[: RECENT + 1] == [*([n] for n in range(2, RECENT + 1)), [RECENT, 1], [RECENT, 2]]
        assert sizes[2 * RECENT - 2] == [2 * RECENT]
        assert max(map(len, sizes)) == 3
        assert sizes[-1] == [SEGMENT, 3 * RECENT, 1]

    def test_joined_is_as_made_at_once(self) -> None:
        many = {
            f"x{i}": (f"Name{i} Family{i}", f"Family{i % 5}stone", "Mira Tovel") for i in range(3 * RECENT)
        }
        grown = NameIndex({})
        for key, names in many.items():
            grown = grown.with_experts({key: names})
        (joined,) = grown.merged()._segments
        (fresh,) = NameIndex(many)._segments
        assert (joined.aliases, joined.patterns, joined.words) == (fresh.aliases, fresh.patterns, fresh.words)
        assert joined.longest == fresh.longest
        assert dict(joined.near._automaton.items()) == dict(fresh.near._automaton.items())
        assert sorted(set(joined._written)) == fresh._written
        said = "Name3 Family3, Nam7 Family7, Family2ston, Mirra Tovel, n a m e 4 f a m i l y 4, Family9s"
        assert grown.merged().find(said) == NameIndex(many).find(said)
        assert set(grown.find(said)) == set(NameIndex(many).find(said))

    def test_nobody_comes_back_with_a_segment_that_is_joined(self) -> None:
        index = NameIndex({f"x{i}": (f"Name{i} Family{i}",) for i in range(RECENT + 2)})
        index = index.without_experts(["x0", f"x{RECENT}"])
        for i in range(2 * RECENT):
            index = index.with_experts({f"y{i}": (f"Other{i} Kin{i}",)})
        assert index._gone == frozenset()
        said = f"Name0 Family0, Name{RECENT} Family{RECENT}, Name1 Family1, Other3 Kin3"
        assert [h.expert_id for h in index.find(said) if h.whole] == ["x1", "y3"]

    @given(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.sampled_from(["Mira Tovel", "Korvane", ""])), max_size=12
        )
    )
    def test_any_order_comes_to_the_same(self, steps: list[tuple[str, str]]) -> None:
        index, held = NameIndex({}), dict[str, str]()
        for expert_id, name in steps:
            index = index.with_experts({expert_id: (name,)}) if name else index.without_experts([expert_id])
            held = {
                **{k: v for k, v in held.items() if k != expert_id},
                **({expert_id: name} if name else {}),
            }
        said = "Mira Tovel and Korvane"
        fresh = NameIndex({k: (v,) for k, v in held.items()})
        assert {(h.expert_id, h.alias) for h in index.find(said)} == {
            (h.expert_id, h.alias) for h in fresh.find(said)
        }


@pytest.fixture(scope="module")
def index() -> NameIndex:
    rng = random.Random(5)
    return NameIndex(
        {
            f"e{i}": [stranger_name(rng, CLASSES[(i + j) % len(CLASSES)], set()) for j in range(3)]
            for i in range(10_000)
        }
    )


class TestScale:
    """30,000 aliases of 10,000 experts; what it costs is measured by `python -m benchmarks.gate`."""

    def test_ordinary_questions_name_nobody_for_sure(self, index: NameIndex) -> None:
        asked = [p.about("Anna") for klass in CLASSES for p in fact_probes(klass, "report", "text")[:2]]
        assert [h for text in asked for h in index.find(text) if h.whole] == []

    def test_adding_one_leaves_the_rest_where_it_is(self, index: NameIndex) -> None:
        grown = index
        for i in range(SEGMENT):
            aliases = (f"Name{i} Family{i}", f"Other{i} Family{i}", f"Third{i}")
            grown = grown.with_experts({f"new{i}": aliases})
        assert grown._segments[0] is index._segments[0]
        assert grown.segments == 2
        assert [h.expert_id for h in grown.find("Other7 Family7") if h.whole] == ["new7"]
        assert [h for h in index.find("Other7 Family7") if h.whole] == []
        assert grown.merged().segments == 1
