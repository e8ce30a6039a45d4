"""MLflow's filter and order_by texts, read into the values of `andon.core.search`.

    filter    = { [AND] condition }
    condition = field operator value
    field     = attribute | prefix "." key        the key bare, or whole in backticks, double or single quotes
    operator  = = != < <= > >= LIKE ILIKE IN, NOT IN, IS NULL, IS NOT NULL, in any case
    value     = number | "text" | 'text' | "(" text { "," text } ")"
    order     = field [ ASC | DESC ]

`GRAMMARS` says which fields each noun has and what may be asked of them. A text is read once from left to right, in time
linear in its length, and is never given to an SQL parser. `docs/reference/search.md` is the reference, with what differs
from MLflow. The words that an error begins with are MLflow's, since its users' tests match them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from andon.core.errors import Invalid
from andon.core.search import Condition, DatasetScope, Field, Kind, Noun, Op, Operand, Order

MAX_LENGTH = 100_000
"""Longest filter, and longest order_by taken together, in characters."""
MAX_CONDITIONS = 500
"""Most conditions of a filter. Lists are bounded by the length of the text alone."""
MAX_ORDER = 50
"""Most fields of an order."""

_COMPARE: tuple[Op, ...] = ("=", "!=", "<", "<=", ">", ">=")
_MATCH: tuple[Op, ...] = ("=", "!=", "LIKE", "ILIKE")
_LIST: tuple[Op, ...] = ("IN", "NOT IN")
_NULL: tuple[Op, ...] = ("IS NULL", "IS NOT NULL")


class Slot(msgspec.Struct, frozen=True):
    """What may be asked of a field.

    Attributes:
        type: of the values stored, and of a condition's value: text; a 64-bit integer, which may also be compared with a
            float; or a float.
        ops: operators of conditions; none: only good for an order.
        sortable: whether it may be ordered by.
        aliases: other names that mean the same.
        whole: whether only whole numbers may stand as the value. For text: what the text must spell, without zeros before.
        quoted: whether a number may stand in quotes.
        bare: whether a text may stand without quotes.
    """

    type: Literal["text", "integer", "number"]
    ops: tuple[Op, ...]
    sortable: bool = True
    aliases: tuple[str, ...] = ()
    whole: bool = False
    quoted: bool = False
    bare: bool = False


class Grammar(msgspec.Struct, frozen=True):
    """The fields of a noun: attributes by name, kinds of fields that have keys, and how the kinds are spelled."""

    attributes: dict[str, Slot]
    kinds: dict[Kind, Slot]
    prefixes: dict[str, Kind]


_RUN_PREFIXES: dict[str, Kind] = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
_NAMED: dict[str, Kind] = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
_TIME = Slot("integer", _COMPARE)
_WORDS = Slot("text", (*_MATCH, *_LIST), bare=True)

GRAMMARS: dict[Noun, Grammar] = {
    "run": Grammar(
        attributes={
            "run_id": Slot("text", (*_MATCH, *_LIST)),
            "run_name": Slot("text", _MATCH, aliases=("run name", "Run name", "Run Name")),
            "status": Slot("text", _MATCH),
            "user_id": Slot("text", _MATCH),
            "artifact_uri": Slot("text", _MATCH),
            "start_time": Slot("integer", _COMPARE, aliases=("created", "Created")),
            "end_time": _TIME,
        },
        kinds={
            "metric": Slot("number", _COMPARE),
            "param": Slot("text", (*_MATCH, *_NULL)),
            "tag": Slot("text", (*_MATCH, *_NULL)),
            "dataset": Slot("text", (*_MATCH, *_LIST), sortable=False),
        },
        prefixes=_RUN_PREFIXES,
    ),
    "experiment": Grammar(
        attributes={
            "name": Slot("text", _MATCH),
            "experiment_id": Slot("text", ("=", "!=", *_LIST), whole=True),
            "creation_time": Slot("integer", _COMPARE, whole=True),
            "last_update_time": Slot("integer", _COMPARE, whole=True),
        },
        kinds={"tag": Slot("text", (*_MATCH, *_NULL), sortable=False)},
        prefixes=_NAMED,
    ),
    "model": Grammar(
        attributes={
            "name": Slot("text", (*_MATCH, *_LIST)),
            "creation_timestamp": Slot("integer", ()),
            "last_updated_timestamp": Slot("integer", (), aliases=("timestamp",)),
        },
        kinds={"tag": Slot("text", _MATCH, sortable=False)},
        prefixes=_NAMED,
    ),
    "model_version": Grammar(
        attributes={
            "name": Slot("text", (*_MATCH, *_LIST)),
            "version_number": Slot("integer", _COMPARE, whole=True, quoted=True),
            "run_id": Slot("text", (*_MATCH, *_LIST), sortable=False),
            "source_path": Slot("text", _MATCH, sortable=False),
            "creation_timestamp": Slot("integer", ()),
            "last_updated_timestamp": Slot("integer", ()),
        },
        kinds={"tag": Slot("text", _MATCH, sortable=False)},
        prefixes=_NAMED,
    ),
    "logged_model": Grammar(
        attributes={
            "name": _WORDS,
            "model_id": _WORDS,
            "model_type": _WORDS,
            "status": _WORDS,
            "source_run_id": _WORDS,
            "creation_timestamp": Slot("integer", _COMPARE, aliases=("creation_time",)),
            "last_updated_timestamp": Slot("integer", _COMPARE, aliases=("last_updated_time",)),
        },
        kinds={
            "metric": Slot("number", _COMPARE),
            "param": Slot("text", (*_MATCH, *_LIST), sortable=False, bare=True),
            "tag": Slot("text", (*_MATCH, *_LIST), sortable=False, bare=True),
        },
        prefixes={word: kind for word, kind in _RUN_PREFIXES.items() if word != "run" and kind != "dataset"},
    ),
}
"""What can be asked of each noun. The attributes' names here are the keys of `Field("attribute", key)`."""

DATASET_KEYS = ("name", "digest", "context")
"""What a run's datasets are asked for."""

_NAMES = {
    noun: {spelled: name for name, slot in grammar.attributes.items() for spelled in (name, *slot.aliases)}
    for noun, grammar in GRAMMARS.items()
}
_PLURAL: dict[Noun, str] = {
    "run": "runs",
    "experiment": "experiments",
    "model": "registered models",
    "model_version": "model versions",
    "logged_model": "logged models",
}


def parse_filter(noun: Noun, text: str) -> tuple[Condition, ...]:
    """The conditions of a filter, all of which must hold; none for an empty text.

    Raises:
        Invalid: it is no filter for this noun; the message says where and what may stand there.

    >>> parse_filter("run", "metrics.auc > 0.8 and tags.`my team` LIKE 'fraud%'")[1]
    Condition(field=Field(kind='tag', key='my team'), op='LIKE', value='fraud%')
    >>> parse_filter("run", "metrics.auc > 'high'")
    Traceback (most recent call last):
    andon.core.errors.Invalid: Expected numeric value for metric 'auc' at character 15 of the filter, found "'high'"
    """
    reader = _Reader(text, "filter")
    conditions: list[Condition] = []
    while reader.more():
        if reader.word().upper() == "AND":
            reader.take(_WORD)
            continue
        conditions.append(_condition(reader, noun))
        if len(conditions) > MAX_CONDITIONS:
            raise Invalid(f"a filter has at most {MAX_CONDITIONS} conditions", field="filter")
    return tuple(conditions)


def parse_order(noun: Noun, texts: Iterable[str]) -> tuple[Order, ...]:
    """The order that order_by texts ask for, the first one first.

    Raises:
        Invalid: one of them is no order for this noun, or a field comes twice.

    >>> parse_order("run", ["metrics.auc DESC", "created"])[1]
    Order(field=Field(kind='attribute', key='start_time'), down=False, dataset=None)
    """
    orders: list[Order] = []
    seen: set[Field] = set()
    length = 0
    for text in texts:
        length += len(text)
        if length > MAX_LENGTH or len(orders) == MAX_ORDER:
            raise Invalid(
                f"order_by has at most {MAX_ORDER} fields and {MAX_LENGTH} characters", field="order_by"
            )
        order = _order(_Reader(text, "order_by"), noun)
        if order.field in seen:
            raise Invalid(
                f"Invalid order_by clause {_short(text)}: order_by contains duplicate fields",
                field="order_by",
            )
        seen.add(order.field)
        orders.append(order)
    return tuple(orders)


def logged_model_order(
    field_name: str,
    ascending: bool = True,
    dataset_name: str | None = None,
    dataset_digest: str | None = None,
) -> Order:
    """One key of an order of logged models, from the fields that MLflow sends.

    Args:
        field_name: an attribute, or `metrics.` and a key as it is, without quotes.
        ascending: smallest first.
        dataset_name: order by the metric as measured on this dataset; attributes have no dataset, it is ignored there.
        dataset_digest: only content of this digest; needs the name.

    Raises:
        Invalid: logged models are not ordered by that, or the digest has no name.

    >>> logged_model_order("metrics.auc", False, "flights").dataset
    DatasetScope(name='flights', digest=None)
    """
    prefix, dot, key = _checked(field_name, "order_by").partition(".")
    name = _NAMES["logged_model"].get(field_name.strip())
    if dataset_digest and not dataset_name:
        raise Invalid("order_by has a dataset_digest without a dataset_name", field="order_by")
    if name is not None:
        return Order(Field("attribute", name), not ascending)
    if not dot or not key or prefix not in ("metric", "metrics"):
        raise Invalid(
            f"Invalid order by field name {_short(field_name)}",
            hint=f"logged models are ordered by metrics.KEY, {', '.join(GRAMMARS['logged_model'].attributes)}",
            field="order_by",
        )
    scope = DatasetScope(dataset_name, dataset_digest or None) if dataset_name else None
    return Order(Field("metric", key), not ascending, scope)


_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[\w.\-/:@%+#$\[\]]*")
"""A field or value without quotes. What it may hold can begin nothing else, so it needs no more rules."""
_LETTERS = re.compile(r"[A-Za-z]*")
_SIGN = re.compile(r"[<>=!~]*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+(?![\w.])|")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_ESCAPED = re.compile(r"""\\(['"\\])""")
_OPS: dict[str, Op] = {op: op for op in get_args(Op)}
_LONGEST_NUMBER = 400


class _Reader:
    """A text and how far it has been read. Every step moves forward or ends in an error."""

    __slots__ = ("at", "text", "what")

    def __init__(self, text: str, what: Literal["filter", "order_by"]) -> None:
        self.text = _checked(text, what)
        self.what = what
        self.at = 0

    def more(self) -> bool:
        """Go over space; whether anything is left."""
        self.take(_SPACE)
        return self.at < len(self.text)

    def next(self) -> str:
        """The next character, left where it is; empty at the end."""
        return self.text[self.at : self.at + 1]

    def word(self) -> str:
        """The next word, left where it is; empty when none begins here."""
        found = _WORD.match(self.text, self.at)
        return found.group() if found else ""

    def take(self, pattern: re.Pattern[str]) -> str:
        """Read what the pattern matches here, which may be nothing."""
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found.group()

    def skip(self, character: str) -> bool:
        """Read that character if it is the next one."""
        here = self.next() == character
        self.at += here
        return here

    def quoted(self) -> str:
        """Read a text in quotes: all characters between them as they are.

        A quote that is doubled, or comes after a backslash, does not end the text, unless none comes after it that would.
        """
        text, start, quote = self.text, self.at, self.text[self.at]
        at, end = start, -1
        while (at := text.find(quote, at + 1)) >= 0:
            if quote != "`" and at > start + 1 and text[at - 1] == "\\":
                end = at
            elif text.startswith(quote, at + 1):
                at, end = at + 1, -1
            else:
                end = at
                break
        if end < 0:
            raise self.fault(f"the quote {quote} is never closed; missing another {quote}")
        self.at = end + 1
        return text[start + 1 : end]

    def fault(self, why: str, at: int | None = None) -> Invalid:
        """The error that something here is not as it must be."""
        stem = "Invalid clause(s) in filter string" if self.what == "filter" else "Invalid order_by clause"
        return Invalid(f"{stem} at character {(self.at if at is None else at) + 1}: {why}", field=self.what)

    def wrong(self, stem: str, at: int, hint: str = "") -> Invalid:
        """The error that a part is understood and may not be there."""
        return Invalid(f"{stem} at character {at + 1} of the {self.what}", hint=hint, field=self.what)

    def found(self) -> str:
        """What stands here, for a message."""
        return _short(self.text[self.at : self.at + 50]) if self.at < len(self.text) else "the end"


def _checked(text: str, what: str) -> str:
    """The text, if it is short enough and no database would choke on its characters."""
    if len(text) > MAX_LENGTH:
        raise Invalid(f"the {what} has {len(text)} characters, at most {MAX_LENGTH} are read", field=what)
    bad = text.find("\0")
    if bad < 0:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            bad = error.start
    if bad >= 0:
        raise Invalid(f"the {what} has a character at {bad + 1} that is no text", field=what)
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _condition(reader: _Reader, noun: Noun) -> Condition:
    field, slot = _field(reader, noun)
    reader.more()
    at = reader.at
    spelled = _operator(reader)
    op = _OPS.get(spelled)
    if op is None or op not in slot.ops:
        can = f"it takes {', '.join(slot.ops)}" if slot.ops else f"{_PLURAL[noun]} are only ordered by it"
        raise reader.wrong(
            f"Invalid comparator {_short(spelled)} for {field.kind} {_short(field.key)}", at, can
        )
    reader.more()
    return Condition(field, op, _value(reader, field, slot, op))


def _order(reader: _Reader, noun: Noun) -> Order:
    reader.more()
    start = reader.at
    field, slot = _field(reader, noun, order=True)
    if not slot.sortable:
        raise reader.wrong(
            f"Invalid order_by entity: {field.kind} {_short(field.key)}", start, _choices(noun, order=True)
        )
    reader.more()
    direction = reader.take(_LETTERS).upper() or "ASC"
    if direction not in ("ASC", "DESC") or reader.more():
        raise reader.fault(
            f"after the field comes ASC, DESC or the end, found {_short(reader.text[start : start + 50])}"
        )
    return Order(field, direction == "DESC")


def _field(reader: _Reader, noun: Noun, *, order: bool = False) -> tuple[Field, Slot]:
    """Read a field and what may be asked of it."""
    start = reader.at
    if reader.next() in ("`", '"'):
        name = reader.quoted()
        dot = reader.skip(".")
        key = _key(reader) if dot else ""
        if order and not dot and "." in name:  # MLflow takes quotes around the whole of an order's field
            name, _, key = name.partition(".")
            dot = True
    else:
        word = reader.word()
        name, mark, _ = word.partition(".")
        dot = bool(mark)
        reader.at += len(name) + len(mark)
        if not name or name.upper() in ("OR", "NOT"):
            reader.at = start
            raise reader.fault(
                f"expected {'a field' if order else 'a condition, or AND and a condition'}, found {reader.found()};"
                + (
                    " there is no OR, NOT or grouping"
                    if name or reader.next() == "("
                    else f" {_choices(noun)}"
                )
            )
        key = _key(reader) if dot else ""
    if not dot:
        return _attribute(reader, noun, name, start, order=order)
    return _keyed(reader, noun, name, key, start, order=order)


def _key(reader: _Reader) -> str:
    """Read what stands after a prefix and its dot."""
    start = reader.at
    key = reader.quoted() if reader.next() in ("`", '"', "'") else reader.take(_WORD)
    if not key:
        raise reader.fault("expected a key after the dot", start)
    if reader.next() in (".", "`", '"'):
        raise reader.fault("quotes go around the whole key, as in tags.`my key`", start)
    return key


def _keyed(reader: _Reader, noun: Noun, prefix: str, key: str, at: int, *, order: bool) -> tuple[Field, Slot]:
    grammar = GRAMMARS[noun]
    kind = grammar.prefixes.get(prefix)
    if kind is None:
        prefixes = ", ".join(grammar.prefixes)
        raise reader.wrong(f"Invalid entity type {_short(prefix)}", at, f"{_PLURAL[noun]} have {prefixes}")
    if kind == "attribute":
        return _attribute(reader, noun, key, at, order=order)
    if kind == "dataset" and key not in DATASET_KEYS:
        known = ", ".join(DATASET_KEYS)
        raise reader.wrong(f"Invalid dataset key {_short(key)}", at, f"datasets have {known}")
    return Field(kind, key), grammar.kinds[kind]


def _attribute(reader: _Reader, noun: Noun, name: str, at: int, *, order: bool) -> tuple[Field, Slot]:
    known = _NAMES[noun].get(name)
    if known is None:
        raise reader.wrong(f"Invalid attribute key {_short(name)}", at, _choices(noun, order=order))
    return Field("attribute", known), GRAMMARS[noun].attributes[known]


def _choices(noun: Noun, *, order: bool = False) -> str:
    """What a noun can be asked for, or ordered by, as a hint."""
    grammar = GRAMMARS[noun]
    slots = {**grammar.attributes, **{f"{kind}s.KEY": slot for kind, slot in grammar.kinds.items()}}
    names = [name for name, slot in slots.items() if (slot.sortable if order else slot.ops)]
    return f"{_PLURAL[noun]} {'are ordered by' if order else 'have'} {', '.join(names)}"


def _operator(reader: _Reader) -> str:
    """Read an operator; words come back in capitals with one space between them."""
    if sign := reader.take(_SIGN):
        return sign
    start = reader.at
    words = [reader.take(_LETTERS).upper()]
    if words[0] in ("NOT", "IS"):
        reader.more()
        words.append(reader.take(_LETTERS).upper())
    if words == ["IS", "NOT"]:
        reader.more()
        words.append(reader.take(_LETTERS).upper())
    operator = " ".join(words)
    if operator not in _OPS or reader.word():
        reader.at = start
        raise reader.fault(f"expected an operator after the field, found {reader.found()}")
    return operator


def _value(reader: _Reader, field: Field, slot: Slot, op: Op) -> Operand:
    if op in _NULL:
        return None
    if op in _LIST:
        return _list(reader, field, slot)
    if slot.type == "text":
        return _text(reader, field, slot)
    return _number(reader, field, slot)


def _list(reader: _Reader, field: Field, slot: Slot) -> tuple[str, ...]:
    """Read a list of texts in parentheses; a comma may end it."""
    if not reader.skip("("):
        raise reader.fault(f"expected a list such as ('a', 'b'), found {reader.found()}")
    values: list[str] = []
    while reader.more() and reader.next() in ("'", '"'):
        value = _ESCAPED.sub(r"\1", reader.quoted())
        values.append(_spelled(reader, field, value) if slot.whole else value)
        reader.more()
        if not reader.skip(","):
            break
    reader.more()
    if not values or not reader.skip(")"):
        raise reader.fault(
            f"expected texts in quotes, with commas between, to the list's end, found {reader.found()}"
        )
    return tuple(values)


def _text(reader: _Reader, field: Field, slot: Slot) -> str:
    if reader.next() in ("'", '"'):
        value = reader.quoted()
    elif slot.bare and (word := reader.word()) and word.upper() != "AND":
        value = reader.take(_WORD)
    else:
        raise reader.wrong(
            f"Expected a quoted string value for {field.kind} {_short(field.key)}, found {reader.found()},",
            reader.at,
        )
    return _spelled(reader, field, value) if slot.whole else value


def _spelled(reader: _Reader, field: Field, value: str) -> str:
    """A whole number that is kept as text, spelled as it is kept."""
    if len(value) > _LONGEST_NUMBER or not _WHOLE.fullmatch(value.strip()):
        raise reader.wrong(
            f"Expected a whole number in quotes for {field.kind} {field.key!r}, found {_short(value)},",
            reader.at,
        )
    return str(int(value))


def _number(reader: _Reader, field: Field, slot: Slot) -> int | float:
    start, found = reader.at, reader.found()
    if slot.quoted and reader.next() in ("'", '"'):
        text = reader.quoted().strip()
        number = bool(_WHOLE.fullmatch(text))
    else:
        text = reader.take(_NUMBER)
        number = bool(text)
    stem = f"for {field.kind} {_short(field.key)} at character {start + 1} of the filter, found {found}"
    if not number or len(text) > _LONGEST_NUMBER:
        raise Invalid(f"Expected numeric value {stem}", field=reader.what)
    if slot.type == "number":
        return float(text)
    whole = bool(_WHOLE.fullmatch(text))
    if slot.whole and not whole:
        raise Invalid(
            f"Invalid value for numeric attribute: expected a whole number {stem}", field=reader.what
        )
    value = int(text) if whole else float(text)
    if not -(2**63) <= value < 2**63:
        raise Invalid(f"Expected a number of 64 bits {stem}", field=reader.what)
    return value
