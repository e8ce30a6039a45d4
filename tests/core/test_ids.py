"""Ids: time-ordered rows, nodes, names, and prediction ids that say where their record is."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Invalid
from andon.core.ids import (
    BOOT_BITS,
    NUMBER_BITS,
    Node,
    PredictionRef,
    check_name,
    new_id,
    node,
    parse_prediction_id,
    prediction_id,
    split_node,
    uuid7,
)

stamps = st.integers(0, 2**48 - 1)
boots = st.integers(0, 2**BOOT_BITS - 1)
numbers = st.integers(0, 2**NUMBER_BITS - 1)


@given(stamps, boots, numbers)
def test_a_prediction_id_gives_back_what_it_was_made_of(at_ms: int, boot: int, number: int) -> None:
    ident = prediction_id(at_ms, boot, number)

    assert parse_prediction_id(ident) == PredictionRef(at_ms, boot, number)
    assert (UUID(ident).version, UUID(ident).variant) == (7, "specified in RFC 4122")


def test_a_prediction_id_never_changes_its_layout() -> None:
    assert prediction_id(1_700_000_000_000, 0xABCDEF1234, 5) == "018bcfe5-6800-7abc-b7bc-48d000000005"


@given(st.sets(stamps, min_size=2, max_size=5))
def test_ids_sort_by_time(at_ms: set[int]) -> None:
    made = {uuid7(stamp).hex: stamp for stamp in at_ms}

    assert [made[ident] for ident in sorted(made)] == sorted(at_ms)


def test_new_ids_are_all_different_and_say_their_kind() -> None:
    made = {new_id("release") for _ in range(1000)}

    assert len(made) == 1000
    assert all(ident.startswith("rel_") and UUID(ident[4:]).version == 7 for ident in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "018bcfe5-6800-4abc-b7bc-48d000000005",
        "018bcfe5-6800-7abc-b7bc",
        "é" * 36,
        "018bcfe568007abcb7bc48d000000005",
        "{018bcfe5-6800-7abc-b7bc-48d000000005}",
        "urn:uuid:018bcfe5-6800-7abc-b7bc-48d000000005",
    ],
)
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"is not a prediction id.*comes with every answer"):
        parse_prediction_id(text)


@pytest.mark.parametrize("ident", ["r1", "sha256:ab", "a:b:c"])
def test_a_node_is_taken_apart_at_its_first_colon(ident: str) -> None:
    assert split_node(node("dataset_version", ident)) == ("dataset_version", ident)


def test_a_node_is_its_kind_and_id() -> None:
    assert node("run", "r1") == Node("run:r1")


@pytest.mark.parametrize("text", ["a", "Churn", "churn-v2.final_1", "x" * 100])
def test_names_of_letters_and_digits_are_taken(text: str) -> None:
    assert check_name("endpoint", text) == text


@pytest.mark.parametrize("text", ["", "1st", "-x", "a b", "a/b", "../x", "x" * 101, "é", "a\n"])
def test_names_that_could_mean_a_path_or_a_flag_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"cannot name a endpoint.*a name is a letter"):
        check_name("endpoint", text)
