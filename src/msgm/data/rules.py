"""The language of rules: comparisons of columns, joined by and, or, not. A rule is parsed; nothing in it is run."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from ..errors import UserError
from .images import Images
from .names import nfc, whole_numbers
from .table import TEXT

Value = int | str
Predicate = Callable[[Images], Tensor]

OPERATORS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "=="),
    ast.NotEq: ("!=", "!="),
    ast.Lt: ("<", ">"),
    ast.LtE: ("<=", ">="),
    ast.Gt: (">", "<"),
    ast.GtE: (">=", "<="),
    ast.In: ("in", ""),
    ast.NotIn: ("not in", ""),
}
"""Each operator as written, and what it is when its two sides change places."""

ORDER = ("<", "<=", ">", ">=")
GRAMMAR = "for example `label in [3, 7]`, `2 < label <= 5` or `Bangs == 1 and not Male == 1`"
MANY = 20


@dataclass(frozen=True)
class Comparison:
    """One column against the numbers or class names on the other side."""

    rule: str
    column: str
    operator: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        one = len(self.values) == 1 and "in" not in self.operator
        return f"{self.column} {self.operator} {self.values[0] if one else list(self.values)!r}"

    def __call__(self, data: Images) -> Tensor:
        if self.column not in data.columns:
            if why := data.dropped.get(self.column):
                hint = f"; read it as labels (labels: {self.column}) to use its names" if why == TEXT else ""
                only = f"cannot be used in rules, which compare whole numbers: {why}"
                raise UserError(f"rule {self.rule!r}: column {self.column} of {data.name} {only}{hint}")
            close = difflib.get_close_matches(self.column, data.columns, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            known = ", ".join(sorted(data.columns)) or "none"
            missing = f"{data.name} has no column {self.column!r}"
            raise UserError(f"rule {self.rule!r}: {missing}{hint} (known columns: {known})")
        column = data.columns[self.column]
        names = self.names(data)
        if _mixed(names) and self.operator in ORDER:
            raise UserError(
                f"rule {self.rule!r}: not all classes are numbers, so they have no order; use == or in "
                f"({known_values(self.column, data)})"
            )
        values = torch.tensor([self._number(value, data) for value in self.values], dtype=torch.int64)
        match self.operator:
            case "<":
                return column < values
            case "<=":
                return column <= values
            case ">":
                return column > values
            case ">=":
                return column >= values
            case "==" | "in":
                return torch.isin(column, values)
            case _:
                return ~torch.isin(column, values)

    def names(self, data: Images) -> Mapping[int, str]:
        """The class names that its values may be: of the label alone."""
        return data.label_names if self.column == "label" else {}

    def _number(self, value: Value, data: Images) -> int:
        names = self.names(data)
        if isinstance(value, int) and not _mixed(names):
            return value
        name, numbers = nfc(str(value)), {nfc(name): number for number, name in names.items()}
        if name in numbers:
            return numbers[name]
        close = difflib.get_close_matches(name, numbers, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = known_values(self.column, data)
        raise UserError(f"rule {self.rule!r}: {self.column} is never {value!r}{hint} ({known})")


def _mixed(names: Mapping[int, str]) -> bool:
    """Whether some classes are called by a number, and not each by its own: a number is a name then, never a place."""
    called = [whole_numbers([name]) for name in names.values()]
    return any(called) and called != [[number] for number in names]


def _class(number: int, names: Mapping[int, str]) -> str:
    """What the class is called that a number in a rule means."""
    return str(number) if _mixed(names) else names.get(number, str(number))


def renumbered(rule: str, before: Mapping[int, str], now: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """Of the labels that a rule says by number, those that are another class now: their names before and now.

    A comparison by order says the number of every class before.
    """
    said: list[int] = []
    for comparison in parse(rule)[1]:
        if comparison.column == "label":
            values = before if comparison.operator in ORDER else comparison.values
            said += [value for value in values if isinstance(value, int)]
    both = {number: (_class(number, before), _class(number, now)) for number in said}
    return {number: names for number, names in both.items() if names[0] != names[1]}


def known_values(column: str, data: Images) -> str:
    values = data.columns[column].unique().tolist()
    names = data.label_names if column == "label" else {}
    words = [f"{value} ({names[value]})" if value in names else str(value) for value in values]
    if _mixed(names):
        words = [repr(names.get(value, value)) for value in values]
    if len(values) > MANY:
        return f"{column} takes {len(values)} values from {words[0]} to {words[-1]}"
    return f"{column} takes {', '.join(words) or 'no values'}"


def parse(rule: str) -> tuple[Predicate, list[Comparison]]:
    """The rule as a function of the data, and the comparisons that it is made of."""
    if not isinstance(rule, str) or not rule.strip():
        raise UserError(f"rule {rule!r}: empty; write a comparison of a column, {GRAMMAR}")
    found: list[Comparison] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python warns of literals such as `3in`, which is no rule either
            tree = ast.parse(rule.strip(), mode="eval")
        return _compile(tree.body, rule, found), found
    except UserError:
        raise
    except (SyntaxError, Warning) as problem:
        reason = getattr(problem, "msg", None) or str(problem)
        raise UserError(f"rule {rule!r}: cannot be read ({reason}); write a rule, {GRAMMAR}") from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        raise UserError(f"rule {rule[:60]!r}…: cannot be read, it is too long or not text") from problem


def _compile(node: ast.expr, rule: str, found: list[Comparison]) -> Predicate:
    match node:
        case ast.BoolOp(op=op, values=parts):
            compiled = [_compile(part, rule, found) for part in parts]
            join = torch.logical_and if isinstance(op, ast.And) else torch.logical_or
            return lambda data: reduce(join, (part(data) for part in compiled))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _compile(operand, rule, found)
            return lambda data: ~inner(data)
        case ast.Compare(left=left, ops=operators, comparators=rights):
            pairs = zip([left, *rights], operators, rights, strict=False)
            links = [_comparison(a, operator, b, rule) for a, operator, b in pairs]
            found.extend(links)
            return lambda data: reduce(torch.logical_and, (link(data) for link in links))
        case ast.Name(id=name):
            raise UserError(f"rule {rule!r}: {name} alone is no comparison; write {name} == 1")
    raise UserError(f"rule {rule!r}: {ast.unparse(node)!r} is not a comparison of a column; write {GRAMMAR}")


def _comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr, rule: str) -> Comparison:
    """`left operator right`, of which one side is a column: a name, or in quotes where no side is a name."""
    if type(operator) not in OPERATORS:
        raise UserError(f"rule {rule!r}: `is` compares nothing here; write == or in")
    forward, backward = OPERATORS[type(operator)]
    sides = [(left, right, forward), (right, left, backward)]
    named = [side for side in sides if isinstance(side[0], ast.Name)]
    quoted = [side for side in sides if isinstance(side[0], ast.Constant) and isinstance(side[0].value, str)]
    if not named and not quoted:
        raise UserError(f"rule {rule!r}: no column in a comparison; write {GRAMMAR}")
    column, other, written = (named or quoted)[0]
    if not written:
        raise UserError(f"rule {rule!r}: `in` wants the column before it and a list after it")
    name = nfc(column.id if isinstance(column, ast.Name) else str(ast.literal_eval(column)))
    listed = isinstance(other, ast.List | ast.Tuple | ast.Set)
    if listed != (written in ("in", "not in")):
        want = "one number or class name" if listed else "a list in brackets"
        raise UserError(f"rule {rule!r}: {written} wants {want} after it, not {ast.unparse(other)}")
    values = tuple(_value(item, rule) for item in (other.elts if listed else [other]))  # type: ignore[attr-defined]
    if written in ORDER and isinstance(values[0], str):
        raise UserError(f"rule {rule!r}: class names have no order; use == or in")
    return Comparison(rule, name, written, values)


def _value(node: ast.expr, rule: str) -> Value:
    match node:
        case ast.Constant(value=int() | str() as constant):
            value: Value = constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)):
            value = -number
        case _:
            raise UserError(f"rule {rule!r}: {ast.unparse(node)} is neither a whole number nor a class name in quotes")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"rule {rule!r}: {value} is too large")
    return value
