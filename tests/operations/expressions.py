"""What a PromQL expression asks for and gives, from its syntax tree: unknown metrics and labels are errors.

Parsed by the grammar of Prometheus itself (promql-parser), which is what `promtool check rules` would do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import promql_parser as promql

SCRAPED = frozenset({"instance", "job"})
"""Labels that Prometheus adds."""
OPEN = frozenset({"state"})
"""Labels whose values are in the code, not in what happened to be measured."""

Exported = Mapping[str, Sequence[Mapping[str, str]]]
"""Every sample's name, with the labels of each sample that has it."""


class UnknownError(AssertionError):
    """The expression asks for what is not exported."""


def labels_of(expression: str, exported: Exported) -> frozenset[str]:
    """Return the labels that the result of `expression` may have.

    Raises:
        ValueError: it is no PromQL.
        UnknownError: it names a metric, a label or a label's value that is not exported.
    """
    return _labels(promql.parse(expression), exported)


def metrics_of(expression: str) -> set[str]:
    """Return the names of all metrics in `expression`."""
    found: set[str] = set()

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            found.add(str(node.name))

    promql.walk(promql.parse(expression), visit)
    return found


def _labels(node: object, exported: Exported) -> frozenset[str]:
    match node:
        case promql.VectorSelector():
            return _selected(node, exported)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, exported)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(node.expr, exported)
        case promql.Call():
            found = frozenset().union(*(_labels(argument, exported) for argument in node.args))
            return found - {"le"} if node.func.name == "histogram_quantile" else found
        case promql.AggregateExpr():
            return _aggregated(node, exported)
        case promql.BinaryExpr():
            return _combined(node, exported)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
    raise NotImplementedError(f"{type(node).__name__}: teach this module")


def _selected(node: promql.VectorSelector, exported: Exported) -> frozenset[str]:
    if node.name is None or node.name not in exported:
        raise UnknownError(f"/metrics does not have {node.name}")
    samples = exported[node.name]
    labels = frozenset(name for sample in samples for name in sample) | SCRAPED
    for matcher in node.matchers.matchers:
        if matcher.name in SCRAPED:
            continue
        if matcher.name not in labels:
            raise UnknownError(f"{node.name} has no label {matcher.name}")
        values = {sample[matcher.name] for sample in samples if matcher.name in sample}
        wanted = {matcher.value}
        if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe):
            wanted = set(matcher.value.split("|"))
        if not any(re.fullmatch(want, value) for want in wanted for value in values):
            raise UnknownError(f"no {matcher.name} of {node.name} is {matcher.value}")
        if matcher.name in OPEN and not wanted <= values:
            raise UnknownError(f"{node.name} is never {', '.join(sorted(wanted - values))}")
    return labels


def _aggregated(node: promql.AggregateExpr, exported: Exported) -> frozenset[str]:
    inner = _labels(node.expr, exported)
    if node.modifier is None:
        return frozenset()
    named = frozenset(node.modifier.labels)
    if not named <= inner:
        raise UnknownError(f"grouped by {', '.join(sorted(named - inner))}, which is nowhere in {node.expr}")
    return named if node.modifier.type == promql.AggModifierType.By else inner - named


def _combined(node: promql.BinaryExpr, exported: Exported) -> frozenset[str]:
    left, right = _labels(node.lhs, exported), _labels(node.rhs, exported)
    modifier = node.modifier
    if modifier is not None and modifier.matching is not None:
        named = frozenset(modifier.matching.labels)
        if not named <= left & right:
            raise UnknownError(f"matched on {', '.join(sorted(named))}, which both sides must have")
    if isinstance(node.lhs, promql.NumberLiteral):
        return right
    many_right = modifier is not None and modifier.card == promql.VectorMatchCardinality.OneToMany
    return right if many_right else left
