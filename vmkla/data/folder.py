"""Listing and reading labelled images: pairs of files, Synapse's slices and volumes, packed files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vmkla.background import mapped
from vmkla.data.packed import packed_pairs
from vmkla.data.pairs import file_pairs
from vmkla.data.sources import PACKED, SLICES, VOLUMES, DataSource, Pair, Sample, raise_problems
from vmkla.data.synapse import synapse_pairs
from vmkla.errors import BadInputError


def list_pairs(sources: Sequence[DataSource]) -> list[Pair]:
    """Every labelled image of the sources, in order, sorted by stem within each.

    Raises:
        BadInputError: folders, files, partners or stems are missing or doubled; all are named at once.
    """
    pairs, problems = find_pairs(sources)
    raise_problems(problems)
    return pairs


def find_pairs(sources: Sequence[DataSource]) -> tuple[list[Pair], list[str]]:
    """As ``list_pairs``, with the problems as sentences instead of an error."""
    pairs: list[Pair] = []
    problems: list[str] = []
    for source in sources:
        pairs.extend(_pairs_of(source, problems))
    doubled = Counter((pair.image, pair.member) for pair in pairs)
    problems.extend(
        f"{path}{member and f' ({member})'} is given {count} times"
        for (path, member), count in doubled.items()
        if count > 1
    )
    return pairs, list(dict.fromkeys(problems))


def _pairs_of(source: DataSource, problems: list[str]) -> Iterator[Pair]:
    if source.kind == PACKED:
        return packed_pairs(source, problems)
    if source.kind in (SLICES, VOLUMES):
        return synapse_pairs(source, problems)
    return file_pairs(source, problems)


def read_sample(pair: Pair) -> Sample:
    """Decode one pair.

    Raises:
        BadInputError: a file cannot be read, the sizes differ, or the mask is not what it must be.
    """
    return pair.read(pair)


def iter_samples(sources: Sequence[DataSource], *, threads: int = 2) -> Iterator[Sample]:
    """Decode the sources' images one after the other, a few ahead.

    Args:
        sources: where to read.
        threads: decoding threads.
    Raises:
        BadInputError: the layout is wrong (before the first sample), or files are; the files' problems
            are gathered to the end, so that one message names them all.
    """
    return iter_pairs(list_pairs(sources), threads=threads)


def iter_pairs(pairs: Sequence[Pair], *, threads: int = 2) -> Iterator[Sample]:
    """Decode pairs one after the other, a few ahead.

    Raises:
        BadInputError: as of ``iter_samples``.
    """
    problems: list[str] = []
    for result in read_ahead(pairs, threads):
        if isinstance(result, BadInputError):
            problems.append(result.message)
        elif not problems:
            yield result
    raise_problems(problems)


def read_ahead(pairs: Sequence[Pair], threads: int) -> Iterator[Sample | BadInputError]:
    """``read_sample`` over the pairs in order, errors as values; holds at most a few decoded images."""

    def read(pair: Pair) -> Sample | BadInputError:
        try:
            return read_sample(pair)
        except BadInputError as error:
            return error

    return mapped(read, pairs, threads=threads, ahead=4 * threads)
