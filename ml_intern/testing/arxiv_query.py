"""Papers and how arXiv's query language finds them: fields, AND, OR, ANDNOT, quotes, brackets, date ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TITLE_WEIGHT = 3
FIELDS = ("ti", "au", "abs", "co", "jr", "cat", "rn", "id", "all", "submittedDate", "lastUpdatedDate")


class QueryError(ValueError):
    """A request that arXiv would refuse, in its words."""


@dataclass(frozen=True)
class Paper:
    """One paper: `id` without version, `version` the newest, times in UTC as `YYYY-MM-DDTHH:MM:SSZ`."""

    id: str
    title: str
    authors: list[str]
    abstract: str
    categories: list[str]
    published: str
    updated: str
    version: int = 1
    comment: str | None = None
    journal_ref: str | None = None
    doi: str | None = None

    def words(self, name: str) -> list[str]:
        """The words of a field, as they are searched."""
        texts: dict[str, list[Any]] = {
            "ti": [self.title],
            "au": self.authors,
            "abs": [self.abstract],
            "co": [self.comment],
            "jr": [self.journal_ref],
            "id": [self.id],
        }
        texts["all"] = [text for values in texts.values() for text in values] + self.categories
        return _words(" | ".join(text for text in texts.get(name, []) if text))


@dataclass
class Query:
    """What a query matches, and the terms that count for relevance."""

    matches: Callable[[Paper], bool]
    terms: list[tuple[str, list[str]]] = field(default_factory=list)


def search(papers: list[Paper], text: str) -> list[Paper]:
    """The papers that match, the most relevant first (tf-idf, a word in the title counting three times).

    Raises:
        QueryError: When the query cannot be read.
    """
    query = parse(text)
    found = [paper for paper in papers if query.matches(paper)]

    def weight(name: str, term: list[str]) -> float:
        having = sum(1 for paper in papers if _count(paper.words(name), term))
        return math.log((1 + len(papers)) / (1 + having)) + 1

    weights = [(name, term, weight(name, term)) for name, term in query.terms]

    def score(paper: Paper) -> float:
        return sum(
            w * (_count(paper.words(name), term) + TITLE_WEIGHT * _count(paper.words("ti"), term))
            for name, term, w in weights
        )

    return sorted(found, key=score, reverse=True)


def parse(text: str) -> Query:
    """Read a query. Terms without an operator between them are alternatives, as on arXiv."""
    tokens = re.findall(r"\w+:\[[^\]]*\]|\w+:\"[^\"]*\"|\"[^\"]*\"|[()]|[^\s()\"]+|\"", text)
    query, rest = _either(tokens)
    if rest:
        raise QueryError(f"malformed query: unexpected {rest[0]!r}")
    return query


def _either(tokens: list[str]) -> tuple[Query, list[str]]:
    left, tokens = _both(tokens)
    while tokens and tokens[0] != ")":
        right, tokens = _both(tokens[1:] if tokens[0] == "OR" else tokens)
        left = _joined(left, right, lambda a, b: a or b)
    return left, tokens


def _both(tokens: list[str]) -> tuple[Query, list[str]]:
    left, tokens = _one(tokens)
    while tokens and tokens[0] in ("AND", "ANDNOT"):
        operator, (right, tokens) = tokens[0], _one(tokens[1:])
        if operator == "AND":
            left = _joined(left, right, lambda a, b: a and b)
        else:
            left = _joined(left, Query(right.matches), lambda a, b: a and not b)
    return left, tokens


def _joined(left: Query, right: Query, combine: Callable[[bool, bool], bool]) -> Query:
    return Query(lambda paper: combine(left.matches(paper), right.matches(paper)), left.terms + right.terms)


def _one(tokens: list[str]) -> tuple[Query, list[str]]:
    if not tokens or tokens[0] in (")", "AND", "OR", "ANDNOT", '"'):
        raise QueryError("malformed query: a term is missing or a quote is open")
    if tokens[0] == "(":
        query, rest = _either(tokens[1:])
        if rest[:1] != [")"]:
            raise QueryError("malformed query: a bracket is open")
        return query, rest[1:]
    name, colon, value = tokens[0].partition(":")
    if not colon or name.startswith('"'):
        name, value = "all", tokens[0]
    if name not in FIELDS:
        raise QueryError(f"malformed query: unknown field {name!r}")
    if not value and tokens[1:2] == ["("]:  # ti:(deep learning) spreads the field over what is in the brackets
        depth = tokens.index(")") if ")" in tokens else None
        if depth is None:
            raise QueryError("malformed query: a bracket is open")
        inner = [t if t in ("AND", "OR", "ANDNOT") else f"{name}:{t}" for t in tokens[2:depth]]
        return _either(inner)[0], tokens[depth + 1 :]
    return _term(name, value), tokens[1:]


def _term(name: str, value: str) -> Query:
    if name.endswith("Date"):
        return Query(_in_range(name, value))
    value = value.strip('"')
    if name == "cat":
        pattern = re.compile(re.escape(value).replace(r"\*", ".*"), re.IGNORECASE)
        return Query(lambda paper: any(pattern.fullmatch(category) for category in paper.categories))
    term = _words(value)
    if not term:
        raise QueryError(f"malformed query: nothing to search for in {name}:{value}")
    return Query(lambda paper: _count(paper.words(name), term) > 0, [(name, term)])


def _in_range(name: str, value: str) -> Callable[[Paper], bool]:
    match = re.fullmatch(r"\[(\d{8}|\d{12}|\*) TO (\d{8}|\d{12}|\*)\]", value)
    if not match:
        raise QueryError(f"malformed query: {name} needs [YYYYMMDDHHMM TO YYYYMMDDHHMM]")
    first, last = match[1].replace("*", "").ljust(12, "0"), match[2].replace("*", "").ljust(12, "9")

    def inside(paper: Paper) -> bool:
        moment = paper.published if name == "submittedDate" else paper.updated
        return first <= re.sub(r"\D", "", moment)[:12] <= last

    return inside


def _words(text: str) -> list[str]:
    """Lower-case words; `_` stands for a space, a plural for its singular, `*` for any ending, `|` parts phrases."""
    words = re.findall(r"[^\W_]+\*?|\|", text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words]


def _count(words: list[str], phrase: list[str]) -> int:
    """How often the phrase stands in the words."""

    def same(word: str, wanted: str) -> bool:
        return word.startswith(wanted[:-1]) if wanted.endswith("*") else word == wanted

    return sum(
        all(same(word, wanted) for word, wanted in zip(words[start:], phrase, strict=False))
        for start in range(len(words) - len(phrase) + 1)
    )
