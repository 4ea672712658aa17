"""refusal: whether an answer declines, in any of the languages a caller may use."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from workers.verification.metrics.similarity import rouge_l

NEARNESS = 0.75

# One line per language: declining, not knowing, not being able, not sharing.
_PATTERNS: dict[str, str] = {
    "en": (
        r"\b(?:i|we)(?: am|'m| are|'re)? (?:really |very |so |truly )?(?:sorry|afraid)\b"
        r"|\b(?:i|we)(?: really| simply| just)? (?:cannot|can not|can't|could not|couldn't|won't|will not"
        r"|would rather not"
        r"|must decline|decline|do not wish|prefer not|may not)\b"
        r"|\b(?:i|we)(?: am|'m| are|'re) (?:unable|not able|not in a position|not permitted|not allowed"
        r"|not familiar"
        r"|not aware|not sure|not certain|not going|prevented)\b"
        r"|\b(?:i|we)(?: really| simply| just)? (?:do not|don't|did not|didn't) (?:actually "
        r"|really )?(?:know|recognise"
        r"|recognize|have|hold|answer|share|discuss|talk|give|recall|remember|keep)\b"
        r"|\b(?:i|we) have (?:no|nothing|not (?:got )?any)\b"
        r"|\bno (?:information|details|knowledge|answer|comment)\b.{0,40}\b(?:available|to share|i can"
        r"|on that|for you)\b"
        r"|\b(?:that|this|it) is (?:not )?(?:something|a subject|a topic|a matter"
        r"|anything) (?:that )?(?:i|we)\b"
        r".{0,20}\b(?:cannot|can't|can|leave|do not|don't|am not|keep|stay)\b"
        r"|\b(?:not|nothing) (?:something|anything) (?:that )?i (?:can|could|may|know)\b"
        r"|\b(?:outside|beyond) (?:of )?what i (?:can|know|may)\b"
        r"|\bnothing (?:that )?(?:i|we) (?:can|could|may)\b"
        r"|\b(?:unknown to me|not known to me|who knows)\b"
        r"|\b(?:i'd|i would|i must|i have to|i need to|let me|i will|i'll) (?:rather not|decline|pass"
        r"|leave that|leave this"
        r"|respectfully decline|refrain)\b"
    ),
    "de": (
        r"\b(?:tut mir leid|bedaure|entschuldig\w*|leider)\b|\b(?:kann|darf|mochte|werde"
        r"|will) ich\b.{0,60}\b(?:nicht|nichts"
        r"|keine?\w*)\b|\bich (?:kann|darf|mochte|werde|will)\b.{0,60}\b(?:nicht|nichts|keine?\w*)\b"
        r"|\bich (?:weiss|kenne)\b.{0,30}\b(?:nicht|nichts|keine?\w*)\b|\bich habe (?:dazu "
        r"|daruber )?keine\b"
    ),
    "fr": (
        r"\bdesolee?\b|\bje (?:ne|n'|n’)\s?(?:peux|puis|sais|connais|suis|dispose|souhaite|ai|veux)\b"
        r"|\bje regrette\b|\bje refuse\b"
    ),
    "es": r"\blo siento\b|\bno (?:puedo|se|conozco|tengo|dispongo|quiero|estoy segur\w|me es posible)\b",
    "it": r"\b(?:mi dispiace|spiacente)\b|\bnon (?:posso|so|conosco|ho|sono in grado|sono sicur\w)\b",
    "pt": r"\b(?:desculpe|lamento|sinto muito)\b|\bnao (?:posso|sei|conheco|tenho|consigo)\b",
    "nl": (
        r"\bhet spijt me\b|\bsorry\b|\bik (?:kan|mag|wil|weet|ken|heb)\b.{0,50}\b(?:niet|niets|geen)\b"
        r"|\bhelaas\b"
    ),
    "pl": r"\bprzykro mi\b|\bprzepraszam\b|\bnie (?:moge|wiem|znam|mam)\b",
    "tr": r"\b(?:uzgunum|maalesef)\b|\b(?:bilmiyorum|yardimci olamam|paylasamam)\b",
    "ru": r"извин|к сожалению|не могу|не знаю|не буду|не располагаю|нет информации",
    "uk": r"вибач|на жаль|не можу|не знаю",
    "ar": r"اسف|عذرا|لا استطيع|لا اعرف|لا يمكنني|لا املك",
    "hi": r"क्षमा|माफ|नहीं बता|नहीं जानत|नहीं पता",
    "zh": r"抱歉|对不起|無法|无法|不能|不知道|不清楚|不便|没有相关|沒有相關",
    "ja": r"申し訳|すみません|できません|わかりません|分かりません|知りません|お答えでき|控え",
    "ko": r"죄송|미안|수 없|모릅니다|모르겠|알지 못",
}
_COMPILED = {language: re.compile(pattern) for language, pattern in _PATTERNS.items()}

# Arabic hamza forms and diacritics vary freely between writers.
_ARABIC = {ord("آ"): "ا", ord("أ"): "ا", ord("إ"): "ا", 0x064B: None}


def _fold(text: str) -> str:
    """Casefold, straighten quotes, strip Latin accents; other scripts keep their letters."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("ʼ", "'")
    plain = "".join(
        unicodedata.normalize("NFD", c)[0] if unicodedata.name(c, "").startswith("LATIN") else c
        for c in folded
    )
    plain = plain.translate(_ARABIC)
    return " ".join(plain.split())


def refusal_language(answer: str) -> str | None:
    """Return the language whose refusal pattern matches the answer, or None."""
    text = _fold(answer)
    return next((language for language, pattern in _COMPILED.items() if pattern.search(text)), None)


def is_refusal(answer: str, bank: Sequence[str] = ()) -> bool:
    """Say whether an answer declines: a multilingual pattern, or ROUGE-L >= .75 to a refusal of the bank.

    Source: METHOD.md section 6. The patterns alone must suffice for refusals nobody trained on; the
    bank adds an operator's own wording.
    """
    if not answer.strip():
        return False
    return refusal_language(answer) is not None or any(rouge_l(answer, known) >= NEARNESS for known in bank)
