"""iNaturalist: observations of living things, each photo with its own license.

Pets have the grade "casual", never "research". The API gets one request a second; photos come from its open
bucket. Observations are listed by id, because paging stops at 10,000 rows.
"""

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.licenses import license_id
from potstill.get.names import near_matches, singulars
from potstill.get.sources import Candidate, Concept, Source, SourceOptions

PAGE = 200
PER_OBSERVATION = 3
"""Photos per observation; more of one animal on one day add little."""
LICENSES = "cc0,cc-by,cc-by-sa,cc-by-nc,cc-by-nc-sa"
"""Requested from the API; the license filter decides afterwards. Photos with all rights reserved are never listed."""


class INaturalist:
    """Photos by taxon."""

    name = "inaturalist"
    has_licenses = True
    public = True

    def __init__(self, client: Client) -> None:
        self._client = client
        self._api = os.environ.get("POTSTILL_INATURALIST_BASE", "https://api.inaturalist.org").rstrip("/") + "/v1"

    async def resolve(self, label: str, wanted: str) -> Concept:
        """A taxon number, also as `inat:NUMBER`, or exactly a common or scientific name."""
        wanted = wanted.removeprefix("inat:")
        if wanted.isdigit():
            found = (await self._client.json(f"{self._api}/taxa/{wanted}")).get("results", [])
            if not found:
                raise SourceError(f"iNaturalist has no taxon {wanted}.")
            return _concept(label, found[0], [])
        near: list[str] = []
        for word in reversed(singulars(wanted)):
            query = {"q": word, "is_active": "true", "per_page": 10}
            results = (await self._client.json(f"{self._api}/taxa", query)).get("results", [])
            exact = [taxon for taxon in results if word in _names(taxon)]
            if exact:
                return _concept(label, exact[0], exact[1:])
            near += [f"{taxon.get('preferred_common_name') or taxon['name']} (inat:{taxon['id']})" for taxon in results]
        text = f" Near: {', '.join(dict.fromkeys(near))}." if near else near_matches(wanted, [])
        raise SourceError(f"iNaturalist has no taxon called exactly {wanted!r}.{text}")

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """Research grade first: several people agreed on the species. Then the rest, with pets and zoo animals."""
        for grade in ("research", "casual,needs_id"):
            last = 0
            while True:
                query = {
                    "taxon_id": concept.id,
                    "photos": "true",
                    "photo_license": LICENSES,
                    "quality_grade": grade,
                    "per_page": PAGE,
                    "order_by": "id",
                    "order": "asc",
                    "id_above": last,
                }
                observations = (await self._client.json(f"{self._api}/observations", query)).get("results", [])
                for observation in observations:
                    for candidate in _candidates(concept, observation):
                        yield candidate
                if not observations:
                    break
                last = observations[-1]["id"]

    async def facts(self) -> dict[str, Any]:
        return {"api": self._api, "size": "medium"}

    async def probe(self) -> str:
        found = (await self._client.json(f"{self._api}/taxa", {"q": "cat", "per_page": 1})).get("results", [])
        if not found:
            raise SourceError(f"{self._api} answers, but finds no cat.")
        return f"answers; a search for cats finds {found[0]['name']}"


def _names(taxon: dict[str, Any]) -> set[str]:
    names = (taxon.get("name"), taxon.get("preferred_common_name"), taxon.get("matched_term"))
    return {str(name).casefold() for name in names if name}


def _concept(label: str, taxon: dict[str, Any], others: Sequence[dict[str, Any]]) -> Concept:
    common = taxon.get("preferred_common_name")
    note = "also: " + ", ".join(f"inat:{other['id']} {other['name']}" for other in others[:3]) if others else ""
    return Concept(
        label=label, id=str(taxon["id"]), name=f"{taxon['name']} ({common})" if common else taxon["name"], note=note
    )


def _candidates(concept: Concept, observation: dict[str, Any]) -> list[Candidate]:
    found = []
    for photo in observation.get("photos", [])[:PER_OBSERVATION]:
        if not photo.get("license_code") or photo.get("flags"):
            continue  # no code means all rights reserved
        login = (observation.get("user") or {}).get("login", "")
        found.append(
            Candidate(
                key=f"inaturalist-{photo['id']}",
                label=concept.label,
                group=f"inaturalist:{observation['uuid']}",
                url=photo["url"].replace("/square.", "/medium."),
                license=license_id(photo["license_code"]),
                author=login or photo.get("attribution", ""),
                title=(observation.get("taxon") or {}).get("name", ""),
                landing_url=f"https://www.inaturalist.org/observations/{observation['id']}",
                more={
                    "label_origin": observation.get("quality_grade", ""),
                    "attribution": photo.get("attribution", ""),
                },
            )
        )
    return found


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. Takes no text."""
    return INaturalist(options.client)
