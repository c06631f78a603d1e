"""Makes `src/potstill/get/wordnet.tsv` from WordNet 3.0 and timm's lists of ImageNet classes.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet     # WordNet 3.0 as Princeton made it
    python tools/make_wordnet_table.py wordnet/usr/share/wordnet SITE-PACKAGES/timm/data/_info

A line: wnid, parents, index in ImageNet-1k, words with the rank of this meaning of the word (1 is the most usual).
"""

import sys
from pathlib import Path

OUT = Path(__file__).parents[1] / "src/potstill/get/wordnet.tsv"


def main(wordnet: Path, info: Path) -> None:
    """Write the table."""
    parents: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    for line in _records(wordnet / "data.noun"):
        fields = line.split(" | ")[0].split()
        offset, count = fields[0], int(fields[3], 16)
        words[offset] = [fields[4 + 2 * i].split("(")[0] for i in range(count)]
        pointers = fields[5 + 2 * count :]
        parents[offset] = [pointers[i + 1] for i in range(0, 4 * int(fields[4 + 2 * count]), 4) if pointers[i] in "@i"]
    ranks: dict[tuple[str, str], int] = {}
    for line in _records(wordnet / "index.noun"):
        fields = line.split()
        for rank, offset in enumerate(fields[-int(fields[2]) :], 1):
            ranks[fields[0], offset] = rank
    first = [line.strip()[1:] for line in (info / "imagenet_synsets.txt").read_text().splitlines()]
    keep = {line.strip()[1:] for line in (info / "imagenet22k_synsets.txt").read_text().splitlines()} | set(first)
    while above := {parent for offset in keep for parent in parents[offset]} - keep:
        keep |= above
    lines = ["# WordNet 3.0 nouns of ImageNet-21k and all above. Made by tools/make_wordnet_table.py."]
    known = set()
    for offset in sorted(keep):
        lemmas = [f"{word.replace('_', ' ')}#{ranks[word.lower(), offset]}" for word in words[offset]]
        known |= {word.lower() for word in words[offset]}
        index = first.index(offset) if offset in first else ""
        lines.append(f"n{offset}\t{','.join('n' + p for p in parents[offset])}\t{index}\t{','.join(lemmas)}")
    for line in (wordnet / "noun.exc").read_text().splitlines():
        plural, singular = line.split()[:2]
        if singular in known and plural not in known:
            lines.append(f"plural\t{plural.replace('_', ' ')}\t\t{singular.replace('_', ' ')}")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(keep):,} synsets, {OUT.stat().st_size:,} bytes")


def _records(path: Path) -> list[str]:
    return [line for line in path.read_text("latin-1").splitlines() if not line.startswith("  ")]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
