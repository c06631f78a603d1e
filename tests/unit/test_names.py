"""Words to WordNet and ImageNet. The counts of subclasses are those of WordNet 3.0 itself."""

import pytest

from potstill.get.names import imagenet_classes, near_matches, singulars, wordnet


@pytest.mark.parametrize(
    ("word", "wnid", "count"),
    [("cat", "n02121620", 7), ("dog", "n02084071", 118), ("bird", "n01503061", 59), ("domestic cat", "n02121808", 5)],
)
def test_words_map_to_imagenet(word: str, wnid: str, count: int) -> None:
    assert wordnet().find(word)[0] == wnid
    assert len(imagenet_classes(word)) == count
    assert imagenet_classes(wnid) == imagenet_classes(word)


def test_imagenet_has_its_thousand_classes_in_order() -> None:
    order = wordnet().imagenet1k
    assert len(order) == len(set(order)) == 1000
    assert order[0] == "n01440764"  # tench
    assert order == tuple(sorted(order))
    assert imagenet_classes("tabby") == [281]


def test_the_order_agrees_with_timm() -> None:
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    listed = (Path(spec.origin).parent / "data/_info/imagenet_synsets.txt").read_text().split()
    assert tuple(listed) == wordnet().imagenet1k


def test_other_classifiers_have_their_own_order() -> None:
    assert imagenet_classes("cat", ["n02084071", "n02123045", "n02121620"]) == [1, 2]


def test_unknown_words_give_nothing() -> None:
    assert wordnet().find("xyzzy") == []
    assert imagenet_classes("xyzzy") == []


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("Cats", "cat"), ("puppies", "puppy"), ("mice", "mouse"), ("foxes", "fox"), ("sea_lions", "sea lion")],
)
def test_plurals(plural: str, singular: str) -> None:
    assert singular in singulars(plural)
    assert wordnet().find(plural) == wordnet().find(singular)


def test_words_that_only_look_plural_stay() -> None:
    assert singulars("glass") == ["glass"]
    assert singulars("bus")[0] == "bus"


def test_near_matches() -> None:
    assert near_matches("elefant", ["Elephant", "Cello"]) == " Near: Elephant."
    assert near_matches("fish", ["Gold fish", "Cello"]) == " Near: Gold fish."
    assert near_matches("xyzzy", ["Cello"]) == ""
