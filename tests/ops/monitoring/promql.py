"""Reads PromQL far enough to know which series it names: selectors with their matchers, and labels by
which it groups and joins. Not a check of syntax, which promtool does."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<number>0x[0-9a-fA-F]+|(?:\d+(?:ms|[smhdwy]))+|\d*\.?\d+(?:[eE][+-]?\d+)?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*|\$\{?\w+\}?)
      | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^=<>(){}\[\],@])""",
    re.VERBOSE,
)
# Words that take a list of labels.
LISTING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = LISTING | {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan", "start", "end"}


class PromqlError(ValueError):
    """Text that is no PromQL."""


@dataclass(frozen=True)
class Matcher:
    """`label op "value"`."""

    label: str
    op: str
    value: str

    def __str__(self) -> str:
        return f'{self.label}{self.op}"{self.value}"'


@dataclass(frozen=True)
class Selector:
    """A metric with its matchers, and where in the text it is."""

    name: str
    matchers: tuple[Matcher, ...]
    start: int
    end: int

    def __str__(self) -> str:
        inner = ",".join(map(str, self.matchers))
        return f"{self.name}{{{inner}}}" if inner else self.name


@dataclass(frozen=True)
class Query:
    """What an expression names."""

    selectors: tuple[Selector, ...]
    # Labels in lists: `by (model)`, `on (job)`.
    labels: frozenset[str]


@dataclass(frozen=True)
class Token:
    """A word, sign or literal."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    """Cuts an expression into tokens, without blanks and comments."""
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if not found:
            raise PromqlError(f"`{text[at:at + 20]}` is no PromQL, in `{text}`")
        at = found.end()
        if found.lastgroup != "space":
            yield Token(found.lastgroup or "", found[0], found.start(), found.end())


@functools.cache
def parse(text: str) -> Query:
    """Finds the selectors and label lists of an expression."""
    all_tokens = list(tokens(text))
    selectors: list[Selector] = []
    labels: set[str] = set()
    at = 0

    def sign(index: int) -> str:
        return all_tokens[index].text if index < len(all_tokens) else ""

    while at < len(all_tokens):
        token = all_tokens[at]
        at += 1
        if token.text == "[":
            # A range; Grafana's variables may stand in it.
            while sign(at) not in ("]", ""):
                at += 1
        elif token.text == "{":
            raise PromqlError(f"a selector without a metric's name, in `{text}`")
        elif token.kind != "name":
            continue
        elif token.text.lower() in LISTING and sign(at) == "(":
            at += 1
            while sign(at) not in (")", ""):
                if all_tokens[at].kind == "name":
                    labels.add(all_tokens[at].text)
                at += 1
        elif token.text.lower() in WORDS or sign(at) in ("(", "by", "without"):
            # An operator, or a function or aggregation.
            continue
        else:
            matchers: list[Matcher] = []
            end = token.end
            if sign(at) == "{":
                at += 1
                while sign(at) not in ("}", ""):
                    if sign(at) == ",":
                        at += 1
                        continue
                    if at + 2 >= len(all_tokens) or all_tokens[at + 2].kind != "string":
                        raise PromqlError(f"a matcher is cut short, in `{text}`")
                    label, op, value = (t.text for t in all_tokens[at:at + 3])
                    matchers.append(Matcher(label, op, value[1:-1]))
                    at += 3
                if sign(at) != "}":
                    raise PromqlError(f"a `}}` is missing, in `{text}`")
                end = all_tokens[at].end
                at += 1
            selectors.append(Selector(token.text, tuple(matchers), token.start, end))
    return Query(tuple(selectors), frozenset(labels))


def with_matcher(text: str, matcher: Matcher, wanted: Callable[[str], bool] = lambda _: True) -> str:
    """The expression with one more matcher in each selector of a wanted metric."""
    for found in sorted(parse(text).selectors, key=lambda s: s.start, reverse=True):
        if not wanted(found.name):
            continue
        wider = Selector(found.name, (matcher, *found.matchers), 0, 0)
        text = text[:found.start] + str(wider) + text[found.end:]
    return text
