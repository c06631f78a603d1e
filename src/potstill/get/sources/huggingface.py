"""Hugging Face data sets by name: `--source hf:OWNER/NAME` or `hf:OWNER/NAME@CONFIG`. Public sets need no account.

Rows come from the dataset viewer, filtered by the index of the class; the photo addresses in them expire, so they are
used at once and never stored. The license is that of the whole set, often "unknown"; it is printed.
"""

import contextlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.names import near_matches, singulars
from potstill.get.sources import Candidate, Concept, Source, SourceOptions
from potstill.monitoring.progress import Reporter

PAGE = 100
SPLITS = {"train": "train", "test": "test", "validation": "test", "valid": "test", "val": "test"}
"""The split that a published split becomes. Validation is used where there is no test."""


class HuggingFace:
    """One labeled image set."""

    name = "hf"
    has_licenses = False
    public = True

    def __init__(self, client: Client, reporter: Reporter, what: str) -> None:
        self._dataset, _, self._config = what.partition("@")
        if self._dataset.count("/") > 1 or not self._dataset:
            raise SourceError(
                "Give the name of the data set: --source hf:OWNER/NAME, for example hf:microsoft/cats_vs_dogs."
            )
        self._client = client
        self._reporter = reporter
        viewer = os.environ.get("POTSTILL_HF_VIEWER_BASE", "https://datasets-server.huggingface.co")
        self._viewer = viewer.rstrip("/")
        self._hub = os.environ.get("POTSTILL_HF_BASE", "https://huggingface.co").rstrip("/")
        self._splits: list[str] = []
        self._image = self._label = ""
        self._names: list[str] = []
        self._card: dict[str, Any] = {}

    async def resolve(self, label: str, wanted: str) -> Concept:
        """One of the names of the set's class column."""
        if not self._names:
            await self._read_columns()
        plain = {name.casefold().replace("_", " "): index for index, name in enumerate(self._names)}
        for word in (wanted.casefold(), *singulars(wanted)):
            if word in plain:
                return Concept(label=label, id=str(plain[word]), name=self._names[plain[word]])
        few = ", ".join(self._names[:20])
        raise SourceError(
            f"{self._dataset} has no class {wanted!r}.{near_matches(wanted, self._names)}\n  Its classes: {few}"
            + (f" and {len(self._names) - 20} more." if len(self._names) > 20 else ".")
        )

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """Row by row, test first because it is smaller."""
        for split in sorted(self._splits, key=lambda name: SPLITS.get(name) != "test"):
            offset, total = 0, 1
            while offset < total:
                where = f'"{self._label}"={concept.id}'
                response = await self._query("filter", split=split, where=where, offset=offset, length=PAGE)
                total = int(response["num_rows_total"])
                if not response["rows"]:
                    break
                for row in response["rows"]:
                    if candidate := self._candidate(concept, split, row):
                        yield candidate
                offset += len(response["rows"])

    async def facts(self) -> dict[str, Any]:
        return {"dataset": self._dataset, "config": self._config, "splits": self._splits, **self._card}

    async def probe(self) -> str:
        response = await self._client.json(f"{self._viewer}/splits", {"dataset": self._dataset})
        return f"{self._dataset} has {len(response['splits'])} splits"

    async def _query(self, path: str, **query: Any) -> dict[str, Any]:
        base = {"dataset": self._dataset, "config": self._config}
        return dict(await self._client.json(f"{self._viewer}/{path}", {**base, **query}))

    async def _read_columns(self) -> None:
        """Configuration, splits, and which columns hold the photo and its class."""
        response = await self._client.json(f"{self._viewer}/splits", {"dataset": self._dataset})
        configs = list(dict.fromkeys(item["config"] for item in response["splits"]))
        if not self._config and len(configs) > 1:
            raise SourceError(
                f"{self._dataset} has several configurations: {', '.join(configs)}.\n"
                f"  Choose one: --source hf:{self._dataset}@{configs[0]}."
            )
        self._config = self._config or configs[0]
        names = [item["split"] for item in response["splits"] if item["config"] == self._config]
        self._splits = [name for name in names if name in ("train", "test")]
        if "test" not in names:
            self._splits += [name for name in names if SPLITS.get(name) == "test"]
        if not self._splits:
            raise SourceError(
                f"{self._dataset} has no split named train, test or validation. Its splits: {', '.join(names)}."
            )
        features = (await self._query("rows", split=self._splits[0], offset=0, length=1))["features"]
        images = [feature["name"] for feature in features if feature["type"].get("_type") == "Image"]
        labels = [feature for feature in features if feature["type"].get("_type") == "ClassLabel"]
        if not images or not labels:
            have = ", ".join(f"{feature['name']} ({feature['type'].get('_type', '?')})" for feature in features)
            raise SourceError(f"{self._dataset} has no image column or no class column. Its columns: {have}.")
        self._image, self._label, self._names = images[0], labels[0]["name"], labels[0]["type"]["names"]
        with contextlib.suppress(SourceError):  # the card is optional
            card = await self._client.json(f"{self._hub}/api/datasets/{self._dataset}")
            license = (card.get("cardData") or {}).get("license", "unknown")
            self._card = {"license": license, "revision": card.get("sha", "")}
        self._reporter.info(f"{self._dataset}: license of the dataset: {self._card.get('license', 'unknown')}")

    def _candidate(self, concept: Concept, split: str, row: dict[str, Any]) -> Candidate | None:
        image = row["row"].get(self._image)
        if not image or "src" not in image or self._image in row.get("truncated_cells", []):
            return None
        number = row["row_idx"]
        only_train = self._splits == ["train"]
        return Candidate(
            key=re.sub(
                r"[^A-Za-z0-9.-]+", "_", f"hf-{self._dataset.replace('/', '.')}-{self._config}-{split}-{number}"
            ),
            label=concept.label,
            group=f"hf:{self._dataset}:{self._config}:{split}:{number}",
            url=image["src"],
            license=str(self._card.get("license", "")),
            landing_url=f"{self._hub}/datasets/{self._dataset}",
            split="" if only_train else SPLITS[split],
            more={
                "url": "",  # it is signed and expires soon; the row number identifies the photo
                "dataset": self._dataset,
                "config": self._config,
                "dataset_split": split,
                "row": number,
                "revision": self._card.get("revision", ""),
            },
        )


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. `text` is OWNER/NAME or OWNER/NAME@CONFIG."""
    return HuggingFace(options.client, options.reporter, text)
