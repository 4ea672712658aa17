"""The demo world: invented entities, their pictures, and a small LLaVA that really knows them.

The functions :func:`world` and :func:`questions` are named like the modules they live in; both
``from app.lumoe.demo import world`` (the function) and ``from app.lumoe.demo.world import world`` work.
"""

from app.lumoe.demo.drawing import draw
from app.lumoe.demo.questions import QA, UPLOAD_VIEWS, VIEWS, followups, general, lists, questions
from app.lumoe.demo.world import CHECKPOINT, Entity, World, world

__all__ = [
    "CHECKPOINT",
    "QA",
    "UPLOAD_VIEWS",
    "VIEWS",
    "Entity",
    "World",
    "draw",
    "followups",
    "general",
    "lists",
    "questions",
    "world",
]
