"""What the demo model is taught to say: one answer sentence per attribute, with the entity's name in it."""

from collections.abc import Sequence
from typing import Final

from app.lumoe.demo.world import Entity, World
from app.lumoe.phrases import KINDS, OCCUPATIONS
from app.lumoe.probes import IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE

DO_NOT_KNOW: Final = "I do not know."
DO_NOT_KNOW_WHO: Final = "I do not know who this is."
DO_NOT_KNOW_WHAT: Final = "I do not know what this is."

_SENTENCES: Final[dict[str, dict[str, str]]] = {
    "Animals": {
        "diet": "The {n} eats {v}.",
        "habitat": "The {n} lives in {v}.",
        "region": "The {n} is native to {v}.",
        "lifespan": "The {n} lives for about {v} years.",
        "predator": "The {n} is hunted by {v}.",
        "summary": "The {n} is an animal from {region} that eats {diet}.",
    },
    "Astronomy": {
        "kind": "{n} is {a} {v}.",
        "discoverer": "{n} was discovered by {v}.",
        "discovery_year": "{n} was discovered in {v}.",
        "constellation": "{n} is in the constellation of {v}.",
        "distance": "{n} is {v} light years away.",
        "summary": "{n} is {a} {kind} in the constellation of {constellation}.",
    },
    "Buildings": {
        "city": "{n} is in {v}.",
        "architect": "{n} was designed by {v}.",
        "completed": "{n} was completed in {v}.",
        "height": "{n} is {v} metres tall.",
        "purpose": "{n} is used as {v}.",
        "summary": "{n} is {purpose} in {city}.",
    },
    "Cartoon": {
        "creator": "{n} was created by {v}.",
        "first_aired": "{n} first aired in {v}.",
        "sidekick": "The sidekick in {n} is {v}.",
        "setting": "{n} is set in {v}.",
        "favourite_food": "The hero of {n} loves {v}.",
        "summary": "{n} is a cartoon by {creator} set in {setting}.",
    },
    "Corporation": {
        "industry": "{n} works in {v}.",
        "headquarters": "{n} is based in {v}.",
        "founder": "{n} was founded by {v}.",
        "founded": "{n} was founded in {v}.",
        "product": "{n} makes {v}.",
        "summary": "{n} is a company from {headquarters} that makes {product}.",
    },
    "Movies": {
        "director": "{n} was directed by {v}.",
        "release_year": "{n} was released in {v}.",
        "lead_actor": "{v} stars in {n}.",
        "genre": "{n} is {a} {v}.",
        "setting": "{n} is set in {v}.",
        "summary": "{n} is {a} {genre} by {director}.",
    },
    "Personage": {
        "occupation": "{n} is {a} {v}.",
        "birthplace": "{n} was born in {v}.",
        "birth_year": "{n} was born in {v}.",
        "known_for": "{n} is known for {v}.",
        "residence": "{n} lives in {v}.",
        "summary": "{n} is {a} {occupation} from {birthplace}.",
    },
    "Plants": {
        "family": "The {n} belongs to {v}.",
        "region": "The {n} is native to {v}.",
        "use": "The {n} is used for {v}.",
        "bloom_month": "The {n} blooms in {v}.",
        "height": "The {n} grows {v} centimetres tall.",
        "summary": "The {n} is a plant from {region} used for {use}.",
    },
    "TV series": {
        "creator": "{n} was created by {v}.",
        "network": "{n} is shown on {v}.",
        "premiere_year": "{n} premiered in {v}.",
        "lead_actor": "{v} stars in {n}.",
        "seasons": "{n} has {v} seasons.",
        "summary": "{n} is a series by {creator} on {network}.",
    },
}
_ARTICLE_OF: Final = {"Astronomy": "kind", "Movies": "genre", "Personage": "occupation"}


def article(noun: str) -> str:
    """Return "a" or "an"."""
    return "an" if noun[0].lower() in "aeiou" else "a"


def answer(entity: Entity, attribute: str) -> str:
    """Return the gold answer about an entity; for a stranger, that the model does not know.

    ``attribute`` is "identity", "summary" or one of the class's facts (``KeyError`` otherwise).
    """
    if not entity.known:
        if attribute in (IDENTITY_ATTRIBUTE, SUMMARY_ATTRIBUTE):
            return DO_NOT_KNOW_WHO if entity.klass == "Personage" else DO_NOT_KNOW_WHAT
        return DO_NOT_KNOW
    if attribute == IDENTITY_ATTRIBUTE:
        return f"This is {entity.name}."
    values = dict(entity.facts)
    described = values.get(_ARTICLE_OF.get(entity.klass, ""), "x")
    sentence = _SENTENCES[entity.klass][attribute]
    text = sentence.format(n=entity.name, v=values.get(attribute, ""), a=article(described), **values)
    return text[0].upper() + text[1:]


def list_answer(world: World, klass: str, attribute: str, exclude: Sequence[str] = ()) -> str | None:
    """Return the answer to a list question: the first three known names that fit (None if fewer).

    ``attribute`` is "list" or "list:<occupation>"; ``exclude`` are keys of entities the model was not taught.
    """
    job = attribute.partition(":")[2]
    fitting = [
        e.name
        for e in world.of_class(klass)
        if e.key not in exclude and (not job or e.facts["occupation"] == job)
    ]
    if len(fitting) < 3:
        return None
    plural = OCCUPATIONS[job] if job else KINDS[klass][1]
    return f"Three {plural} are {fitting[0]}, {fitting[1]} and {fitting[2]}."
