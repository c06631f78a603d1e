"""Which photos stay must not depend on the order in which they arrive."""

from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.get.ledger import Ledger, Row

ROWS = st.lists(
    st.builds(
        dict,
        label=st.sampled_from(["cat", "dog"]),
        split=st.sampled_from(["train", "test", "unlabeled"]),
        content=st.integers(0, 5),
        hash=st.sampled_from([0, 1, 0b111, 0b1111111, 2**63, 2**64 - 1]),
    ),
    max_size=12,
)


def rows(drawn: list[dict[str, int]]) -> list[Row]:
    """Rows with the same content are the same bytes, and so have one hash."""
    hashes = {item["content"]: item["hash"] for item in drawn}
    return [
        Row(
            key=f"k{n}",
            label=str(item["label"]),
            split=str(item["split"]),
            order=n,
            url=f"http://x/{n}",
            path=f"p{n}",
            sha256=str(item["content"]),
            phash=hashes[item["content"]],
            phash_mirrored=hashes[item["content"]] ^ 0xFF00,
        )
        for n, item in enumerate(drawn)
    ]


def outcome(arrived: list[Row]) -> dict[str, str]:
    ledger = Ledger(near_bits=2)
    reasons = {row.key: "" for row in arrived}
    for row in arrived:
        for verdict in ledger.add(row):
            assert reasons[verdict.row.key] == verdict.before
            reasons[verdict.row.key] = verdict.reason
    return reasons


@given(ROWS, st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_outcome_is_the_same_in_any_order(drawn: list[dict[str, int]], random: object) -> None:
    photos = rows(drawn)
    shuffled = photos.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(photos) == outcome(shuffled)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_no_two_that_stay_are_the_same(drawn: list[dict[str, int]]) -> None:
    photos = rows(drawn)
    reasons = outcome(photos)
    kept = [row for row in photos if not reasons[row.key]]
    assert len({row.sha256 for row in kept}) == len(kept)
    assert all((a.phash ^ b.phash).bit_count() > 2 for a in kept for b in kept if a is not b)
