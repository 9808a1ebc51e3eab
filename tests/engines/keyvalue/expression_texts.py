"""hypothesis strategies of items and of expressions: trees, and texts that mean them.

Names are few, so that paths often lead somewhere; each text is one of the many of its tree.
"""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

from engines.keyvalue.parse.expressions.trees import (
    Action,
    AddAction,
    And,
    Arithmetic,
    Between,
    Compare,
    DeleteAction,
    Function,
    IfNotExists,
    In,
    ListAppend,
    NewValue,
    Not,
    Operand,
    Or,
    Path,
    RemoveAction,
    SetAction,
    Size,
    Test,
    Value,
)

NAMES = {"#x": "x", "#dot": "a.b", "#word": "select", "#0": "0"}
_ALIASES = {name: alias for alias, name in NAMES.items()}
_PLAIN = ["a", "b", "c", "x"]
# Of these, bounds of BETWEEN are in order.
VALUES: dict[str, dict[str, Any]] = {
    ":s0": {"S": ""},
    ":s1": {"S": "a"},
    ":s2": {"S": "ab"},
    ":n0": {"N": "-1"},
    ":n1": {"N": "1"},
    ":n2": {"N": "2.5"},
    ":b0": {"B": "YQ=="},
    ":b1": {"B": "YWI="},
    ":l": {"L": [{"S": "a"}, {"N": "1"}]},
    ":m": {"M": {"x": {"S": "a"}}},
    ":ss": {"SS": ["a", "ab"]},
    ":ns": {"NS": ["1", "2.5"]},
    ":bs": {"BS": ["YQ=="]},
    ":yes": {"BOOL": True},
    ":nil": {"NULL": True},
    ":type": {"S": "S"},
}
_ORDERED = [":s0", ":s1", ":s2", ":n0", ":n1", ":n2", ":b0", ":b1"]
_TEXTS = [":s0", ":s1", ":s2", ":b0", ":b1"]

parts = st.one_of(
    st.sampled_from([*_PLAIN, "a.b", "select", "0"]), st.sampled_from([0, 0, 1, 2, 7])
)
paths = st.one_of(
    st.builds(
        lambda head, rest: Path((head, *rest)),
        st.sampled_from([*_PLAIN, "a.b"]),
        st.lists(parts, max_size=3),
    ),
    st.sampled_from(_PLAIN).map(lambda name: Path((name,))),
    st.sampled_from([0, 1, 2, 3, 7, 9]).map(lambda index: Path(("b", index))),
    st.sampled_from(_PLAIN).map(lambda name: Path(("c", name))),
)


def _values(names: list[str]) -> st.SearchStrategy[Value]:
    return st.builds(Value, st.sampled_from(names))


sized = st.builds(Size, st.one_of(paths, _values([":s2", ":b1", ":l", ":m", ":ss"])))
operands: st.SearchStrategy[Operand] = st.one_of(paths, _values(list(VALUES)), sized)
ordered: st.SearchStrategy[Operand] = st.one_of(paths, _values(_ORDERED), sized)
texts: st.SearchStrategy[Operand] = st.one_of(paths, _values(_TEXTS))


def _is_distinct(*given: Operand) -> bool:
    return not isinstance(given[0], Path) or given[0] not in given[1:]


def _between(of: Operand, bounds: tuple[Operand, Operand]) -> Between:
    return Between(of, *bounds)


_bounds = st.one_of(
    st.sampled_from([(Value(":s0"), Value(":s2")), (Value(":n1"), Value(":n1"))]),
    st.tuples(ordered, st.one_of(paths, sized)),
)
singles: st.SearchStrategy[Test] = st.one_of(
    st.builds(Compare, st.sampled_from(["=", "<>"]), operands, operands).filter(
        lambda test: _is_distinct(test.left, test.right)
    ),
    st.builds(Compare, st.sampled_from(["<", "<=", ">", ">="]), ordered, ordered).filter(
        lambda test: _is_distinct(test.left, test.right)
    ),
    st.builds(_between, ordered, _bounds).filter(
        lambda test: _is_distinct(test.of, test.low, test.high)
    ),
    st.builds(In, operands, st.lists(operands, min_size=1, max_size=3).map(tuple)).filter(
        lambda test: _is_distinct(test.of, *test.options)
    ),
    st.builds(
        lambda name, path: Function(name, (path,)),
        st.sampled_from(["attribute_exists", "attribute_not_exists"]),
        paths,
    ),
    st.builds(lambda path: Function("attribute_type", (path, Value(":type"))), paths),
    st.builds(lambda one, two: Function("begins_with", (one, two)), texts, texts).filter(
        lambda test: _is_distinct(*test.args)
    ),
    st.builds(lambda one, two: Function("contains", (one, two)), operands, operands).filter(
        lambda test: _is_distinct(*test.args)
    ),
)


def _joined(tests: st.SearchStrategy[Test]) -> st.SearchStrategy[Test]:
    several = st.lists(tests, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(And, several), st.builds(Or, several), st.builds(Not, tests))


conditions = st.recursive(singles, _joined, max_leaves=6)


@st.composite
def condition_texts(draw: st.DrawFn) -> tuple[Test, str]:
    """Draw a condition and a text of it."""
    test = draw(conditions)
    return test, _Printer(draw).test(test)


class _Printer:
    """Prints trees; where the language leaves a choice, it is drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def word(self, text: str) -> str:
        return self.one_of(text, text.lower(), text.title())

    def space(self) -> str:
        return self.one_of(" ", "", "\n\t ")

    def path(self, path: Path) -> str:
        text = ""
        for part in path.parts:
            if isinstance(part, int):
                text += f"[{part}]"
                continue
            alias = _ALIASES.get(part)
            name = alias if alias and (part not in _PLAIN or self.draw(st.booleans())) else part
            text += f".{name}" if text else name
        return text

    def operand(self, operand: Operand | NewValue) -> str:
        text = self.bare(operand)
        return self.one_of(text, text, f"({self.space()}{text})")

    def bare(self, operand: Operand | NewValue) -> str:
        match operand:
            case Path():
                return self.path(operand)
            case Value(name):
                return name
            case Size(of):
                return f"size{self.space()}({self.operand(of)})"
            case IfNotExists(path, other):
                return f"if_not_exists({self.operand(path)},{self.operand(other)})"
            case ListAppend(left, right):
                return f"list_append({self.operand(left)}, {self.operand(right)})"
        raise AssertionError(operand)

    def test(self, test: Test) -> str:
        match test:
            case And(terms):
                return f" {self.word('AND')} ".join(map(self.term, terms))
            case Or(terms):
                return f" {self.word('OR')} ".join(
                    self.test(term) if isinstance(term, And) else self.term(term) for term in terms
                )
            case Not(term):
                return f"{self.word('NOT')} {self.term(term)}"
            case Compare(op, left, right):
                return f"{self.operand(left)}{self.space()}{op}{self.space()}{self.operand(right)}"
            case Between(of, low, high):
                bounds = f"{self.operand(low)} {self.word('AND')} {self.operand(high)}"
                return f"{self.operand(of)} {self.word('BETWEEN')} {bounds}"
            case In(of, options):
                shown = ",".join(map(self.operand, options))
                return f"{self.operand(of)} {self.word('IN')}{self.space()}({shown})"
            case Function(name, args):
                return f"{name}({', '.join(map(self.operand, args))})"

    def term(self, test: Test) -> str:
        text = self.test(test)
        if isinstance(test, And | Or):
            return f"({text})"
        return self.one_of(text, f"({text}{self.space()})")

    def new_value(self, value: NewValue) -> str:
        if not isinstance(value, Arithmetic):
            return self.operand(value)
        text = f"{self.operand(value.left)} {value.op} {self.operand(value.right)}"
        return self.one_of(text, f"({text})")

    def action(self, action: Action) -> tuple[str, str]:
        path = self.path(action.path)
        match action:
            case SetAction(_, value):
                return "SET", f"{path}{self.space()}={self.space()}{self.new_value(value)}"
            case RemoveAction():
                return "REMOVE", path
            case AddAction(_, value):
                return "ADD", f"{path} {value.name}"
            case DeleteAction(_, value):
                return "DELETE", f"{path} {value.name}"


def _is_list(value: NewValue) -> bool:
    """Tell whether a value may stand in list_append, which may not stand in itself."""
    return value == Value(":l") or isinstance(value, Path | IfNotExists)


_nested_values: st.SearchStrategy[NewValue] = st.recursive(
    st.one_of(paths, _values(list(VALUES))),
    lambda inner: st.one_of(
        st.builds(IfNotExists, paths, inner),
        st.builds(
            ListAppend,
            inner.filter(_is_list),
            inner.filter(_is_list),
        ),
    ),
    max_leaves=4,
)
_summands: st.SearchStrategy[NewValue] = st.one_of(
    _values([":n0", ":n1", ":n2"]),
    _nested_values.filter(lambda value: not isinstance(value, Value)),
)
new_values: st.SearchStrategy[NewValue] = st.one_of(
    _nested_values, st.builds(Arithmetic, st.sampled_from("+-"), _summands, _summands)
)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(SetAction, paths, new_values),
    st.builds(RemoveAction, paths),
    st.builds(AddAction, paths, _values([":n0", ":n2", ":ss", ":ns", ":bs"])),
    st.builds(DeleteAction, paths, _values([":ss", ":ns", ":bs"])),
)


def _can_stand_with(path: Path, others: list[Path]) -> bool:
    """Tell whether a path neither overlaps nor conflicts with others."""
    for other in others:
        for one, two in zip(path.parts, other.parts, strict=False):
            if type(one) is not type(two):
                return False
            if one != two:
                break
        else:
            return False
    return True


@st.composite
def update_texts(draw: st.DrawFn) -> tuple[tuple[Action, ...], str]:
    """Draw an update's actions and a text of them."""
    found: list[Action] = []
    for action in draw(st.lists(actions, min_size=1, max_size=5)):
        if _can_stand_with(action.path, [other.path for other in found]):
            found.append(action)
    printer = _Printer(draw)
    sections: dict[str, list[tuple[Action, str]]] = {}
    for action in found:
        section, text = printer.action(action)
        sections.setdefault(section, []).append((action, text))
    text = " ".join(
        f"{printer.word(section)} {', '.join(each for _, each in printed)}"
        for section, printed in sections.items()
    )
    return tuple(action for printed in sections.values() for action, _ in printed), text


@st.composite
def projection_texts(draw: st.DrawFn) -> tuple[tuple[Path, ...], str]:
    """Draw the paths of a projection and a text of them."""
    found: list[Path] = []
    for path in draw(st.lists(paths, min_size=1, max_size=5)):
        if _can_stand_with(path, found):
            found.append(path)
    printer = _Printer(draw)
    return tuple(found), ", ".join(map(printer.path, found))


def _binary(data: bytes) -> str:
    return base64.b64encode(data).decode()


_strings = st.sampled_from(["", "a", "ab", "b", "ü", "S"])
_numbers = st.sampled_from(["0", "1", "-1", "2.5", "10", "0.001", "-0.5"])
_binaries = st.sampled_from([b"", b"a", b"ab", b"\xff", b"b"]).map(_binary)


def _sets(kind: str, elements: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(elements, min_size=1, max_size=3, unique=True)
    return lists.map(lambda content: {kind: content})


# What expressions compare with, sets in another order; so comparisons are often close.
_known = st.sampled_from(
    [
        {kind: content[::-1] if kind in ("SS", "NS", "BS") else content}
        for value in VALUES.values()
        for kind, content in value.items()
    ]
)
scalars: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _known,
    _known,
    _strings.map(lambda content: {"S": content}),
    _numbers.map(lambda content: {"N": content}),
    _binaries.map(lambda content: {"B": content}),
    st.booleans().map(lambda content: {"BOOL": content}),
    st.just({"NULL": True}),
    _sets("SS", _strings),
    _sets("NS", _numbers),
    _sets("BS", _binaries),
)
_member_names = st.sampled_from([*_PLAIN, "a.b", "select", "0"])
values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda content: {"L": content}),
        st.dictionaries(_member_names, inner, max_size=4).map(lambda content: {"M": content}),
    ),
    max_leaves=8,
)
_lists = st.lists(scalars, max_size=3).map(lambda content: {"L": content})
_maps = st.dictionaries(_member_names, st.one_of(scalars, _lists), max_size=4)
# One attribute is a list and one a map more often than not: paths shall lead somewhere.
items = st.fixed_dictionaries(
    {},
    optional={
        "a": st.one_of(_known, values),
        "b": st.one_of(_lists, _lists, values),
        "c": st.one_of(_maps.map(lambda content: {"M": content}), values),
        "x": st.one_of(_known, values),
        "a.b": values,
    },
)
