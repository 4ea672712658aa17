"""How answers decline, language by language: not being able, not knowing, not wanting, not being allowed.

Patterns see casefolded text without Latin accents and with straight apostrophes. What a third party cannot do
("the animal cannot fly") is no refusal, so nearly all ask for a first person.
"""

from __future__ import annotations

from typing import Final

_DE_NOT: Final = r"(?:nicht|nichts|keine?\w*)"
_DE_HERE: Final = r"(?:ich|mir|dazu|daruber|hierzu)"
_NL_HERE: Final = r"(?:ik|daar|daarover|hierover)"

PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        r"\b(?:i|we)(?: am|'m| are|'re)? (?:really |very |so |truly )?(?:sorry|afraid)\b"
        r"(?! to (?:hear|see)| for your| about your)",
        r"\b(?:i|we)(?: really| simply| just)? (?:cannot|can not|can't|could not|couldn't|won't|will not"
        r"|must decline|decline|do not wish|may not)\b"
        r"(?! (?:imagine|believe|wait|stress|resist|complain|make it))",
        r"\b(?:prefer|rather) not\b",
        r"\b(?:i|we)(?: am|'m| are|'re) (?:unable|not able|not in a position|not permitted|not allowed"
        r"|not familiar|not aware|not sure|not certain|not going|prevented)\b",
        r"\b(?:i|we)(?: really| simply| just)? (?:do not|don't|did not|didn't) (?:actually |really )?"
        r"(?:know|recognise|recognize|have|hold|answer|share|discuss|talk|give|recall|remember|keep)\b",
        r"\b(?:i|we) have (?:no|nothing|not (?:got )?any)\b",
        r"\bno (?:information|details|knowledge|answer|comment)\b.{0,40}"
        r"\b(?:available|to share|i can|on that|for you)\b",
        r"^no comment\b",
        r"\b(?:that|this|it) is (?:not )?(?:something|a subject|a topic|a matter|anything) (?:that )?"
        r"(?:i|we)\b.{0,20}\b(?:cannot|can't|can|leave|do not|don't|am not|keep|stay)\b",
        r"\b(?:not|nothing) (?:something|anything) (?:that )?i (?:can|could|may|know)\b",
        r"\b(?:not|isn't) (?:something|anything) (?:that )?(?:i'm|i am|we're|we are)"
        r" (?:able|allowed|willing)\b",
        r"\b(?:outside|beyond) (?:of )?what i (?:can|know|may)\b",
        r"\bnothing (?:that )?(?:i|we) (?:can|could|may)\b",
        r"\b(?:unknown to me|not known to me|who knows)\b",
        r"\b(?:i'd|i would|i must|i have to|i need to|let me|i will|i'll) (?:decline|pass|leave that"
        r"|leave this|leave it at that|respectfully decline|refrain)\b",
        r"\bneither confirm nor deny\b",
        r"\b(?:not|wouldn't|isn't) (?:be )?appropriate for (?:me|us)\b",
        r"\bmy (?:guidelines|rules|instructions)\b",
        r"\b(?:you'll|you will|you would) have to ask (?:someone|somebody|anyone) else\b",
        r"^(?:let's|let us|can we|could we) (?:talk about something else|change the (?:subject|topic))\b",
    ),
    "de": (
        r"\b(?:tut mir leid|bedaure|entschuldig\w*)\b",
        rf"\bleider\b.{{0,40}}\b{_DE_HERE}\b|\b{_DE_HERE}\b.{{0,40}}\bleider\b",
        rf"\b(?:kann|darf|mochte|werde|will) ich\b.{{0,60}}\b{_DE_NOT}\b",
        rf"\bich (?:kann|darf|mochte|werde|will)\b.{{0,60}}\b{_DE_NOT}\b",
        rf"\b(?:weiss|kenne) ich\b.{{0,30}}\b{_DE_NOT}\b|\bich (?:weiss|kenne)\b.{{0,30}}\b{_DE_NOT}\b",
        r"\bich habe (?:dazu |daruber )?keine\b",
    ),
    "fr": (
        r"\bdesolee?\b",
        r"\bje (?:ne|n'|n’)\s?(?:peux|puis|sais|connais|suis|dispose|souhaite|ai|veux)\b",
        r"\bje (?:regrette|refuse|prefere ne pas)\b",
        r"\b(?:m'est|nous est) impossible\b",
    ),
    "es": (
        r"\blo siento\b",
        r"\bno (?:puedo|conozco|dispongo|quiero|estoy segur\w|me es posible)\b",
        r"\bno (?:lo )?se\b(?=[.,!]|$| (?:nada|quien|que|donde|la respuesta))",
        r"\bno tengo (?:informacion|datos|respuesta|conocimiento)\b",
        r"\bprefiero no\b",
    ),
    "it": (
        r"\b(?:mi dispiace|spiacente)\b",
        r"\bnon (?:posso|so|saprei|conosco|ho|sono in grado|sono sicur\w)\b",
        r"\bpreferisco non\b",
    ),
    "pt": (
        r"\b(?:desculpe|lamento|sinto muito)\b",
        r"\bnao (?:posso|sei|conheco|tenho|consigo)\b",
        r"\bprefiro nao\b",
    ),
    "nl": (
        r"\bhet spijt me\b|\bsorry\b",
        r"\bik (?:kan|mag|wil|weet|ken|heb)\b.{0,50}\b(?:niet|niets|geen)\b",
        rf"\b{_NL_HERE}\b.{{0,40}}\bhelaas\b|\bhelaas\b.{{0,40}}\b{_NL_HERE}\b",
        r"\bik\b.{0,20}\bliever niet\b",
    ),
    "pl": (
        r"\bprzykro mi\b|\bprzepraszam\b",
        r"\bnie (?:moge|wiem|znam|mam|rozpoznaje|potrafie)\b",
        r"\bwole nie\b",
    ),
    "tr": (
        r"\b(?:uzgunum|maalesef)\b",
        r"\b(?:bilmiyorum|bilgim yok)\b",
        r"\b\w{2,}(?:amam|emem)\b",  # the first person's "cannot"
    ),
    "ru": (
        r"извин|к сожалению",
        r"не могу|не знаю|не буду|не располагаю|не узнаю|нет информации|предпочитаю не",
    ),
    "uk": (r"вибач|на жаль|не можу|не знаю|не буду",),
    "ar": (r"اسف|عذرا|لا استطيع|لا اعرف|لا يمكنني|لا املك|ليس لدي|لن اجيب",),
    "hi": (r"क्षमा|माफ|नहीं बता|नहीं जानत|नहीं पता",),
    "zh": (
        r"抱歉|对不起|没有相关|沒有相關|无可奉告",
        r"(?:我|我们|本人).{0,6}(?:無法|无法|不能|不知道|不清楚|不便|不方便|不会|不予)",
        r"^(?:無法|无法|不能|不知道|不清楚|不便)",
    ),
    "ja": (
        r"申し訳|すみません|わかりません|分かりません|知りません|お答えでき|控え",
        r"お[^。]{1,8}できません|(?:回答|特定|識別|提供)できません",
    ),
    "ko": (
        r"죄송|미안|모릅니다|모르겠|알지 못",
        r"(?:드릴|말할|말씀드릴|답할|도울|도와드릴|알|확인할|식별할) 수 ?없",
        r"드리기 어렵|답하기 어렵",
    ),
}
"""Alternatives by ISO 639-1 code."""
