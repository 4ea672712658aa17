"""The policy's page: rules in force, the versions before, for operators of `root` a form to change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.api.deps import SessionDep, SettingsDep
from app.api.intake import RawBody
from app.api.pagination import Cursor, decode_number, encode_cursor
from app.dashboard.rendering import render, see_other
from app.dashboard.session import Sent, Visitor, sent, visitor
from app.kit.canonical import JsonValue
from app.kit.errors import LetheError
from app.removal.acting import OPERATORS
from app.removal.policies import RULES, PolicyService
from app.removal.records import RECIPES, Policy
from app.removal.schemas import PolicyChange, PolicyRules
from app.settings import Settings

router = APIRouter(include_in_schema=False)
Operators = Annotated[Visitor, Depends(visitor(*OPERATORS))]
OperatorsForm = Annotated[Sent, Depends(sent(*OPERATORS))]
SHOWN = 25
_CHOICES: Mapping[str, tuple[str, ...]] = {"review": ("auto", "manual"), "recipe": RECIPES}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as the page shows it: in force, by the settings, and what the form has (empty: settings)."""

    name: str
    told: str
    value: str
    default: str
    entered: str
    choices: tuple[str, ...]


@router.get("/dashboard/policy")
def policy(
    request: Request, who: Operators, session: SessionDep, settings: SettingsDep, cursor: Cursor = None
) -> Response:
    """Show the rules that the next approval takes its snapshot of, and the versions before."""
    return _page(request, session, settings, who, cursor=cursor)


@router.post("/dashboard/policy")
def change_policy(
    request: Request, form: OperatorsForm, session: SessionDep, settings: SettingsDep
) -> Response:
    """Make a new version; what cannot be accepted comes back filled in."""
    based_on = form.text("based_on")
    fields: dict[str, object] = {
        "based_on": int(based_on) if based_on.isascii() and based_on.isdecimal() else based_on,
        "reason": form.text("reason"),
        "rules": {name: form.text(name) for name in RULES if form.text(name)},
    }
    try:
        change = RawBody(fields, []).validated(PolicyChange)
        PolicyService(session, settings).change(form.visitor.principal, change)
    except LetheError as error:
        if error.status not in (409, 422):
            raise
        return _page(request, session, settings, form.visitor, form=form, error=error)
    return see_other("/dashboard/policy")


def _page(
    request: Request,
    session: Session,
    settings: Settings,
    who: Visitor,
    *,
    cursor: str | None = None,
    form: Sent | None = None,
    error: LetheError | None = None,
) -> Response:
    service = PolicyService(session, settings)
    view, history = service.view(), service.history(after=decode_number(cursor), limit=SHOWN)
    values, defaults = view.model_dump(), Policy.of(settings, None).as_json()

    def entered(name: str) -> str:
        if form is not None:
            return form.text(name)
        return _shown(values[name]) if name in view.overridden else ""

    return render(
        request,
        "policy.html",
        code=error.status if error is not None else 200,
        title="Policy",
        policy=view,
        rules=[
            Rule(
                name,
                str(PolicyRules.model_fields[name].description).replace("`", ""),
                _shown(values[name]),
                _shown(defaults[name]),
                entered(name),
                _CHOICES.get(name, ()),
            )
            for name in RULES
        ],
        installed=[(name, _shown(values[name]), told) for name, told in _INSTALLED.items()],
        history=history.items,
        next=encode_cursor(history.items[-1].version) if history.more else None,
        under_way=service.under_way(who.principal.sees),
        reason=form.text("reason") if form is not None else "",
        error=error,
        may=who.principal.root,
    )


def _shown(value: JsonValue) -> str:
    """Return a rule's value for people: 0.98, 1, 10,485,760."""
    return f"{value:,}" if isinstance(value, int) else str(value).removesuffix(".0")


_INSTALLED: Mapping[str, str] = {
    "model": "the base model",
    "response_days": "when an owner has an answer at the latest",
    "evidence_retention_days": "days for which pictures are kept after the request is done",
    "max_pictures": "pictures in one request",
    "max_picture_bytes": "bytes of one picture",
}
"""What only the installation's settings say."""
