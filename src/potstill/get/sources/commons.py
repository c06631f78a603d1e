"""Wikimedia Commons: files that depict a Wikidata item, or of a category. Its license data are the best of all sources.

Its rules became strict in 2025 and 2026: the User-Agent must name the person who runs the program, thumbnails exist in
a few widths only and their addresses must come from the API, and at most two files are downloaded at once.
"""

import asyncio
import html
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.licenses import license_id
from potstill.get.names import singulars
from potstill.get.sources import Candidate, Concept, Source, SourceOptions

WIDTH = 960
"""One of the widths that Commons makes: 20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840."""
PAGE = 50
"""Files per call; for more, the API gives no scaled pictures."""

_QID = re.compile(r"Q[1-9]\d*")


class Commons:
    """Photos by what they depict."""

    name = "commons"
    has_licenses = True
    public = True

    def __init__(self, client: Client) -> None:
        if "@" not in client.contact and "://" not in client.contact:
            raise SourceError(
                "Wikimedia Commons requires a contact; without one it allows ten requests a minute.\n"
                "  Give your e-mail address: --contact me@example.org, or set POTSTILL_CONTACT."
            )
        self._client = client
        self._api = os.environ.get("POTSTILL_COMMONS_BASE", "https://commons.wikimedia.org").rstrip("/") + "/w/api.php"
        wikidata = os.environ.get("POTSTILL_WIKIDATA_BASE", "https://www.wikidata.org").rstrip("/")
        self._wikidata = f"{wikidata}/w/api.php"
        self._in_series = asyncio.Lock()

    async def resolve(self, label: str, wanted: str) -> Concept:
        """A word by Wikidata's search (its first hit), a QID, or `Category:Cats`."""
        if wanted.startswith("Category:"):
            return Concept(label=label, id=wanted, name=wanted.removeprefix("Category:"))
        if _QID.fullmatch(wanted):
            response = await self._query(
                self._wikidata, action="wbgetentities", ids=wanted, props="labels", languages="en"
            )
            entity = response.get("entities", {}).get(wanted, {})
            if not entity or "missing" in entity:
                raise SourceError(f"Wikidata has no item {wanted}.")
            return Concept(label=label, id=wanted, name=entity.get("labels", {}).get("en", {}).get("value", wanted))
        for word in reversed(singulars(wanted)):
            response = await self._query(
                self._wikidata, action="wbsearchentities", search=word, language="en", type="item", limit=7
            )
            if found := response.get("search", []):
                best, *others = found
                meanings = [
                    f"{item['id']} {item.get('label', '')} ({item.get('description', '')})" for item in others[:3]
                ]
                note = "other meanings: " + "; ".join(meanings) if meanings else ""
                return Concept(label=label, id=best["id"], name=best.get("label", word), note=note)
        raise SourceError(f"Wikidata finds nothing for {wanted!r}.")

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """Page by page, as the search ranks them."""
        query: dict[str, Any] = {
            "prop": "imageinfo",
            "iiprop": "url|size|mime|extmetadata",
            "iiurlwidth": WIDTH,
            "iiextmetadatafilter": "LicenseShortName|LicenseUrl|License|Artist|Restrictions",
        }
        if concept.id.startswith("Category:"):
            query |= {"generator": "categorymembers", "gcmtitle": concept.id, "gcmtype": "file", "gcmlimit": PAGE}
        else:
            search = f"haswbstatement:P180={concept.id} filetype:bitmap filemime:image/jpeg"
            query |= {"generator": "search", "gsrnamespace": 6, "gsrlimit": PAGE, "gsrsearch": search}
        following: Mapping[str, Any] = {}
        while True:
            response = await self._query(self._api, action="query", **query, **following)
            pages = response.get("query", {}).get("pages", [])
            for page in sorted(pages, key=lambda page: (page.get("index", 0), page.get("pageid", 0))):
                if candidate := _candidate(concept, page):
                    yield candidate
            following = response.get("continue", {})
            if not following:
                return

    async def facts(self) -> dict[str, Any]:
        return {"api": self._api, "width": WIDTH}

    async def probe(self) -> str:
        response = await self._query(self._api, action="query", meta="siteinfo")
        return str(response["query"]["general"]["sitename"]) + " answers"

    async def _query(self, api: str, **query: Any) -> dict[str, Any]:
        async with self._in_series:  # API calls one after another, as the API etiquette asks
            return dict(await self._client.json(api, {"format": "json", "formatversion": 2, "maxlag": 5, **query}))


def _candidate(concept: Concept, page: Mapping[str, Any]) -> Candidate | None:
    info = next(iter(page.get("imageinfo", [])), None)
    if info is None or not str(info.get("mime", "")).startswith("image/") or "thumburl" not in info:
        return None
    meta = {name: str(item.get("value", "")) for name, item in info.get("extmetadata", {}).items()}
    texts = (meta.get("License", ""), meta.get("LicenseUrl", ""), meta.get("LicenseShortName", ""))
    title = str(page["title"]).removeprefix("File:")
    return Candidate(
        key=f"commons-{page['pageid']}",
        label=concept.label,
        group=f"commons:{title}",
        url=info["thumburl"],
        license=next(filter(None, map(license_id, texts)), ""),
        license_url=meta.get("LicenseUrl", ""),
        author=_text(meta.get("Artist", "")),
        title=title,
        landing_url=info.get("descriptionurl", ""),
        more={
            "label_origin": "depicts",
            "original_sha1": info.get("sha1", ""),
            "restrictions": meta.get("Restrictions", ""),
        },
    )


def _text(markup: str) -> str:
    """Plain text of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. Takes no text."""
    return Commons(options.client)
