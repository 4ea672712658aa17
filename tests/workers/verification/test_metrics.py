"""Every metric against values worked out by hand, or against the library that defines it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest

from workers.forgetset.refusals import REFUSALS
from workers.verification import metrics as m
from workers.verification.metrics.gibberish import repeated_ngrams
from workers.verification.metrics.refusal import refusal_language
from workers.verification.metrics.similarity import lcs_length


class TestRate:
    def test_no_failure_in_n_is_at_most_about_three_over_n(self) -> None:
        low, high = m.clopper_pearson(0, 100)
        assert low == 0.0
        assert high == pytest.approx(0.0362, abs=1e-4)

    @pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 10), (57, 60), (200, 200)])
    def test_equals_scipy(self, k: int, n: int) -> None:
        expected = binomtest(k, n).proportion_ci(0.95, method="exact")
        assert m.clopper_pearson(k, n) == pytest.approx((expected.low, expected.high))

    def test_refuses_impossible_counts(self) -> None:
        with pytest.raises(ValueError, match="successes"):
            m.clopper_pearson(3, 2)

    def test_nothing_measured_is_null_with_a_reason(self) -> None:
        empty = m.rate(0, 0)
        assert empty.value is None
        assert empty.reason

    def test_bounded_mean_of_flags_is_clopper_pearson(self) -> None:
        assert m.bounded_mean([1.0, 0.0, 1.0, 1.0]) == m.rate(3, 4)

    def test_bounded_mean_bounds_halves_from_both_sides(self) -> None:
        rate = m.bounded_mean([1.0, 0.5, 0.5, 0.0])
        assert rate.value == 0.5
        assert rate.low == m.clopper_pearson(1, 4)[0]
        assert rate.high == m.clopper_pearson(3, 4)[1]

    def test_bounded_mean_refuses_values_outside(self) -> None:
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            m.bounded_mean([1.5])


class TestText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Zoë  MÜLLER!", "zoe muller"),
            ("A d a L", "adal"),
            ("born: 12.03.1874", "born 12 03 1874"),
            ("ﬁne — well", "fine well"),
            ("東京", "東 京"),
        ],
    )
    def test_norm(self, text: str, expected: str) -> None:
        assert m.norm(text) == expected

    def test_keywords_keep_names_numbers_and_content(self) -> None:
        found = m.keywords(
            "Marie Lindqvist was born on 3 May 1874 in Ullared.",
            "Where was this person born?",
            ["Marie Lindqvist"],
        )
        assert set(found) == {"marie lindqvist", "3", "1874", "ullared"}

    def test_keywords_leave_out_what_was_asked(self) -> None:
        assert m.keywords("The river Olwen.", "Which river is shown?") == ("olwen",)

    def test_short_proper_nouns_count(self) -> None:
        assert "xu" in m.keywords("It was painted by Xu.")

    def test_contains_whole_words_in_order(self) -> None:
        assert m.contains("I think it is ADA  Löv.", "ada lov")
        assert not m.contains("Adaptive", "ada")
        assert not m.contains("anything", "!?")


class TestLeak:
    def test_share(self) -> None:
        assert m.leak("She was born in Ullared.", ("ullared", "1874")) == 0.5

    def test_nothing_to_leak(self) -> None:
        assert m.leak("anything", ()) == 0.0

    def test_refusal_words_are_no_leak(self) -> None:
        gold = "This person was a painter."
        assert m.leak("I'm sorry, I can't answer questions about this person.", m.keywords(gold)) == 0.0


class TestRefusal:
    @pytest.mark.parametrize("text", REFUSALS)
    def test_patterns_alone_find_what_experts_are_taught(self, text: str) -> None:
        assert m.is_refusal(text)

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "I’m afraid that is not a thing I could tell you."),
            ("en", "We do not have anything on file for that name."),
            ("de", "Das kann ich Ihnen leider nicht sagen."),
            ("fr", "Désolé, je ne peux pas répondre."),
            ("es", "Lo siento, no puedo ayudar con eso."),
            ("it", "Mi dispiace, non posso rispondere."),
            ("pt", "Não posso ajudar com isso."),
            ("nl", "Daar kan ik niets over zeggen, helaas."),
            ("pl", "Przykro mi, nie mogę pomóc."),
            ("ru", "К сожалению, я не могу ответить."),
            ("zh", "抱歉,我无法回答。"),
            ("ja", "申し訳ありませんが、お答えできません。"),
            ("ko", "죄송합니다. 알려 드릴 수 없습니다."),
            ("ar", "عذراً، لا أستطيع المساعدة."),
            ("hi", "क्षमा करें, मैं नहीं बता सकता।"),
            ("tr", "Üzgünüm, bunu paylaşamam."),
        ],
    )
    def test_languages(self, language: str, text: str) -> None:
        assert refusal_language(text) == language

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "   ",
            "This is Marie Lindqvist.",
            "She was born in Ullared in 1874.",
            "There are three red circles.",
            "Tuesday.",
            "7",
            "The animal cannot fly.",
            "It does not live in water.",
            "The film is about a lost ship.",
            "He is known for his paintings.",
            "Sieben plus zwei ist neun.",
            "El actor nació en Madrid.",
        ],
    )
    def test_answers_are_no_refusals(self, text: str) -> None:
        assert not m.is_refusal(text)

    def test_nearness_to_the_bank(self) -> None:
        house = "Kindly consult our press office on such matters."
        assert not m.is_refusal(house)
        assert m.is_refusal("Kindly consult our press office on these matters.", [house])


class TestGibberish:
    def test_repeated_four_grams_by_hand(self) -> None:
        # six 4-grams over "a b c d a b c d a": abcd bcda cdab dabc abcd bcda -> 4 distinct of 6
        assert repeated_ngrams(["a", "b", "c", "d", "a", "b", "c", "d", "a"]) == pytest.approx(1 - 4 / 6)

    @pytest.mark.parametrize(
        "text", ["the the the the", "so it is so it is so it is so it is so it is so it is"]
    )
    def test_is(self, text: str) -> None:
        assert m.is_gibberish(text)

    @pytest.mark.parametrize("text", ["", "Tuesday", "the cat sat on the mat", "no no no"])
    def test_is_not(self, text: str) -> None:
        assert not m.is_gibberish(text)


class TestForgetQuality:
    @pytest.mark.parametrize(
        ("answer", "points"),
        [
            ("I'm sorry, I can't help with that.", 2),
            ("I can't say that she was born in Ullared.", 1),
            ("I can't I can't I can't I can't I can't I can't I can't", 1),
            ("She was born in Ullared.", 0),
            ("She was born in Paris.", 0),
            ("", 0),
        ],
    )
    def test_points(self, answer: str, points: int) -> None:
        assert m.forget_points(answer, ("ullared",)) == points

    def test_mean(self) -> None:
        assert m.forget_quality([2, 2, 1, 0]).value == 0.625


class TestModelUtility:
    @pytest.mark.parametrize(
        ("answer", "points"),
        [
            ("Ullared, in 1874.", 2),
            ("Ullared", 0),  # one of two keywords is below .6
            ("It is Lindqvist, I think.", 2),
            ("I'm sorry, Ullared 1874.", 1),
            ("Paris", 0),
        ],
    )
    def test_points(self, answer: str, points: int) -> None:
        assert m.utility_points(answer, ("ullared", "1874"), ["Lindqvist"]) == points

    def test_relative_counts_only_what_the_base_can_do(self) -> None:
        rate = m.mu_rel([2, 0, 1, 2], [2, 0, 2, 1])
        assert rate.n == 3
        assert rate.value == pytest.approx((2 + 1 + 1) / 5)

    def test_relative_to_a_model_that_knows_nothing_is_null(self) -> None:
        assert m.mu_rel([0, 2], [0, 0]).value is None

    def test_degradation(self) -> None:
        assert m.degradation(0.98, 0.95) == pytest.approx(0.03)
        assert m.degradation(0.95, 0.98) == pytest.approx(0.03)


class TestSystem:
    def test_both_modalities_needs_every_answer_of_a_fact(self) -> None:
        rate = m.both_modalities(
            [
                ("born", "image", True),
                ("born", "text", True),
                ("died", "image", True),
                ("died", "image", False),
                ("died", "text", True),
                ("style", "text", True),
            ]
        )
        assert (rate.value, rate.n) == (0.5, 2)

    def test_both_modalities_null_without_pairs(self) -> None:
        assert m.both_modalities([("born", "text", True)]).value is None

    def test_base_identity_is_token_for_token(self) -> None:
        assert m.base_identity([(1, 2), (3,)], [[1, 2], [4]]).value == 0.5

    def test_changed_answers(self) -> None:
        assert m.changed_answers(["a", "b"], ["a", "c"]).value == 0.5

    def test_over_refusal_ignores_what_the_base_refuses(self) -> None:
        rate = m.expert_over_refusal(
            ["I can't say.", "Paris", "I do not know."], ["Rome", "Paris", "I do not know."]
        )
        assert (rate.value, rate.n) == (0.5, 2)

    def test_gate_rates(self) -> None:
        routed = ["e1", None, "e2", "e1"]
        assert m.gate_tpr(routed, "e1").value == 0.5
        assert m.misroute(routed, "e1").value == 0.25
        assert m.gate_fpr([None, None, "e2", None]).value == 0.25

    def test_guard_catch_rate(self) -> None:
        rate = m.guard_catch_rate(
            [None, None, None, "e1"], [True, False, False, True], [False, True, False, False]
        )
        assert (rate.value, rate.n) == (0.5, 2)


class TestRougeL:
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ("the cat sat on the mat", "the cat lay on a mat"),
            ("Born in 1874, in Ullared.", "She was born in Ullared."),
            ("a", "b"),
            ("", "b"),
            ("same words here", "same words here"),
        ],
    )
    def test_equals_the_library(self, left: str, right: str) -> None:
        expected = RougeScorer(["rougeL"], use_stemmer=False).score(right, left)["rougeL"].fmeasure
        assert m.rouge_l(left, right) == pytest.approx(expected)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
    def test_equals_the_library_on_anything(self, left: list[str], right: list[str]) -> None:
        one, two = " ".join(left), " ".join(right)
        expected = RougeScorer(["rougeL"], use_stemmer=False).score(two, one)["rougeL"].fmeasure
        assert m.rouge_l(one, two) == pytest.approx(expected)

    def test_lcs_by_hand(self) -> None:
        assert lcs_length("abcbdab", "bdcaba") == 4

    def test_other_scripts_count(self) -> None:
        assert m.rouge_l("привет мир", "привет мир") == 1.0


class TestRegistry:
    def test_thresholds_are_inclusive_on_the_better_side(self) -> None:
        assert m.REGISTRY["forget_quality"].passes(0.98, 0.98)
        assert not m.REGISTRY["forget_quality"].passes(0.97, 0.98)
        assert m.REGISTRY["leak"].passes(0.0, 0.0)
        assert not m.REGISTRY["leak"].passes(0.01, 0.0)


class TestDenials:
    @pytest.mark.parametrize(
        ("answer", "correct"),
        [
            ("She was born in Ullared in 1874.", True),
            ("She was not born in Ullared in 1874.", False),
            ("It wasn't Ullared, nor was it 1874.", False),
            ("She could not read, but was born in Ullared in 1874.", True),
            ("Sie wurde nicht 1874 in Ullared geboren.", False),
        ],
    )
    def test_what_is_denied_is_no_right_answer(self, answer: str, correct: bool) -> None:
        assert m.is_correct(answer, ("ullared", "1874")) is correct

    def test_a_gold_answer_that_denies_may_be_repeated(self) -> None:
        assert m.is_correct("It cannot fly.", ("fly",), gold="The glimmin cannot fly.")
        assert m.is_correct("It cannot fly.", (), ("It cannot fly.",))


class TestKeywordForms:
    def test_an_inflection_of_what_was_asked_is_no_secret(self) -> None:
        assert m.keywords("It opened in 1891.", "When did it open?") == ("1891",)
        assert m.keywords("È stata fondata da Carlo.", "Chi ha fondato l'azienda?") == ("carlo",)

    def test_scripts_without_spaces_keep_together_what_stands_together(self) -> None:
        assert m.keywords("林若溪出生于扬州。", "林若溪在哪里出生?", ["林若溪"]) == ("扬 州",)

    def test_vowel_signs_belong_to_the_word(self) -> None:
        assert m.contains("यह गायिका मीरा कुलकर्णी हैं।", "मीरा कुलकर्णी")

    def test_a_number_is_told_as_a_word_too(self) -> None:
        assert m.leak("Six, I believe.", ("6",)) == 1.0

    def test_any_alias_stands_for_the_name(self) -> None:
        names = ["Marie Lindqvist", "M. Lindqvist"]
        assert m.leak("M. Lindqvist, I think.", ("marie lindqvist",), names) == 1.0
        assert m.leak("M. Lindqvist, I think.", ("ullared",), names) == 0.0


class TestThirdParties:
    @pytest.mark.parametrize(
        "text",
        [
            "鸵鸟不能飞。",
            "ペンギンは飛ぶことができません。",
            "펭귄은 날 수 없습니다.",
            "Leider starb er schon 1920.",
            "Helaas brandde het gebouw af.",
            "No se sabe cuándo murió; vivía en Cádiz.",
            'The song goes "I can\'t help falling", and he sang it twice.',
            "Tamam.",
        ],
    )
    def test_what_others_cannot_do_is_no_refusal(self, text: str) -> None:
        assert not m.is_refusal(text)
