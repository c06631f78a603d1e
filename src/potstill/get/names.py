"""From words to classes: singular forms, near matches, and the part of WordNet that ImageNet uses.

`wordnet.tsv` is made by `tools/make_wordnet_table.py` from WordNet 3.0 (license in `wordnet-license.txt`).
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources


def singulars(word: str) -> list[str]:
    """The word in lower case and its possible singular forms, likeliest first: `Puppies` → puppies, puppy, …"""
    plain = " ".join(word.casefold().replace("_", " ").split())
    forms = [plain]
    if irregular := wordnet().irregular.get(plain):
        forms.append(irregular)
    if plain.endswith("ies") and len(plain) > 4:
        forms.append(plain[:-3] + "y")
    if plain.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        forms.append(plain[:-2])
    if plain.endswith("s") and not plain.endswith("ss") and len(plain) > 2:
        forms.append(plain[:-1])
    return list(dict.fromkeys(forms))


def near_matches(wanted: str, names: Iterable[str]) -> str:
    """The end of an error message: the names most similar to `wanted`, or containing it."""
    word = wanted.casefold()
    by_folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(word, by_folded, n=5, cutoff=0.75)
    near += sorted((name for name in by_folded if word in name.split()), key=len)[:5]
    found = [by_folded[name] for name in dict.fromkeys(near)][:8]
    return f" Near: {', '.join(found)}." if found else ""


@dataclass(frozen=True, slots=True)
class WordNet:
    """ImageNet's synsets (21,841 of them) and everything above them in WordNet 3.0."""

    parents: dict[str, tuple[str, ...]]
    """Of each wnid."""
    words: dict[str, tuple[str, ...]]
    """Of each wnid, the first is its name."""
    senses: dict[str, tuple[str, ...]]
    """Of each word in lower case, its wnids, the most common meaning first."""
    imagenet1k: tuple[str, ...]
    """The thousand wnids of ImageNet-1k, in the order of every classifier's outputs."""
    irregular: dict[str, str]
    """Irregular plurals: mice → mouse."""

    def find(self, wanted: str) -> list[str]:
        """The wnids that a word (or a wnid) may mean, the most common first; empty when WordNet does not know it."""
        if wanted in self.parents:
            return [wanted]
        return next((list(self.senses[form]) for form in singulars(wanted) if form in self.senses), [])

    def is_a(self, wnid: str, ancestor: str) -> bool:
        """Whether `wnid` is `ancestor` or a subclass of it."""
        return wnid == ancestor or any(self.is_a(parent, ancestor) for parent in self.parents.get(wnid, ()))


@cache
def wordnet() -> WordNet:
    """The table that ships with Potstill, read once."""
    parents: dict[str, tuple[str, ...]] = {}
    words: dict[str, tuple[str, ...]] = {}
    ranked: dict[str, list[tuple[int, str]]] = {}
    irregular: dict[str, str] = {}
    imagenet: dict[int, str] = {}
    text = resources.files("potstill.get").joinpath("wordnet.tsv").read_text("utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        wnid, above, index, lemmas = line.split("\t")
        if wnid == "plural":
            irregular[above] = lemmas
            continue
        parents[wnid] = tuple(above.split(",")) if above else ()
        if index:
            imagenet[int(index)] = wnid
        names = []
        for lemma in lemmas.split(","):
            name, _, rank = lemma.rpartition("#")
            names.append(name)
            ranked.setdefault(name.casefold(), []).append((int(rank), wnid))
        words[wnid] = tuple(names)
    senses = {word: tuple(wnid for _, wnid in sorted(found)) for word, found in ranked.items()}
    return WordNet(parents, words, senses, tuple(imagenet[i] for i in range(len(imagenet))), irregular)


def imagenet_classes(wanted: str, synsets: Sequence[str] = ()) -> list[int]:
    """Which outputs of an ImageNet classifier mean `wanted`: the sum of their probabilities is its "cat".

    Args:
        wanted: a word (its most usual meaning is taken) or a wnid.
        synsets: the classifier's wnids in output order; ImageNet-1k's when empty.
    Returns:
        Indices, ascending; empty when the word is unknown or the classifier has no such class.
    """
    table = wordnet()
    order = synsets or table.imagenet1k
    for wnid in table.find(wanted):
        if found := [index for index, synset in enumerate(order) if table.is_a(synset, wnid)]:
            return found
    return []
