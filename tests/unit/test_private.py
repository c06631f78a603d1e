"""What is left out of pages that people pass on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.run.private import without_owner


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("potstill distill /srv/jane/photos --run runs/a", "potstill distill photos --run runs/a"),
        ("potstill distill '/srv/jane/my photos/cats' --seeds 3", "potstill distill 'cats' --seeds 3"),
        ("potstill distill ~/photos/cats/", "potstill distill cats"),
        ("data = 'C:\\Users\\Jane Doe\\photos'", "data = 'photos'"),
        ('data = "/media/nas/jane/"', 'data = "jane"'),
        ("--images.labels=/srv/jane/labels.csv", "--images.labels=labels.csv"),
        ("at \\\\nas\\jane\\photos\\a.jpg, line 3", "at a.jpg, line 3"),
        ("file:///srv/jane/a.jpg", "a.jpg"),
        ("C:/Users/jane/a.jpg: cut off", "a.jpg: cut off"),
        ("(/srv/jane/a.jpg)", "(a.jpg)"),
        ("in /root and /home", "in … and …"),
        ("by Jane <jane.doe+x@mail.example.org>", "by Jane <jane.doe+x@…>"),
        ("mailto:jane@example.org", "mailto:jane@…"),
        ("https://jane:pw@example.org/a/b.jpg", "https://example.org/a/b.jpg"),
        ("https://x.org/a.jpg?token=abcdef&b=1", "https://x.org/a.jpg?token=…&b=1"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrstu potstill", "HF_TOKEN=… potstill"),
        ("with hf_abcdefghijklmnopqrstu here", "with hf_… here"),
        ("ghp_" + "a1" * 18, "ghp_…"),
        ("api_key: 'secret-value'", "api_key: '…'"),
    ],
)
def test_owners_are_left_out(text: str, expected: str) -> None:
    assert without_owner(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "train/cat/a.jpg",
        "4_students/mobilenetv1_025/seed-0",
        "https://example.org/licenses/by/2.0/",
        "//example.org/a/b",
        "120 photos/s, 1/2, and/or, n/a, 3 px / 4 px",
        "hf-hub:timm/mobilenetv3_small_100.lamb_in1k",
        "a + b · photos−c; 50 % (40 to 60)",
        "@jane on Flickr, 3 @ 4",
        "potstill predict RUN photo.jpg",
        'weights = "auto"',
        "--comparison.confidence 0.95",
        "sha256 0ab65be10131e6f87beb44ec51ebbd0416c293b1284c87b82562dce0b739b8a7",
        "teacher.unlike = 'keep'",
        "seed 3: split_seed = 0",
        "a token of thanks: good",
    ],
)
def test_what_readers_need_stays(text: str) -> None:
    assert without_owner(text) == text


@given(st.text())
def test_it_ends_and_changes_nothing_twice(text: str) -> None:
    once = without_owner(text)
    assert "hf_abcdefghijklmnop" not in without_owner(f"{text} hf_abcdefghijklmnop")
    assert len(once) <= 2 * len(text) + 10
