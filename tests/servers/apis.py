"""Commons with Wikidata, iNaturalist, and the Hugging Face viewer, in the shapes they answer in."""

from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web
from tests.servers.pictures import jpeg

SIGNED = "Expires=1&Signature=a%2Fb~c&Key-Pair-Id=K"
LADDER = {20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840}


async def send_photo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=jpeg(int(request.match_info["number"])), content_type="image/jpeg")


@dataclass
class Wiki:
    """A Commons of `files` cats, of which every seventh has no license that we take, and every ninth no imageinfo."""

    files: int = 120
    maxlag_answers: int = 1
    too_many_answers: int = 1
    asked: Counter[str] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/w/api.php", self.api)
        app.router.add_get("/thumb/{number:\\d+}/960px-a.jpg", send_photo)
        return app

    async def api(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        self.agents.add(request.headers["User-Agent"])
        self.asked[query["action"] + query.get("meta", "")] += 1
        if query["action"] == "wbsearchentities":
            items = {"cat": [("Q146", "house cat", "domesticated feline"), ("Q42604", "CAT", "bulldozers")]}
            return web.json_response(
                {
                    "searchinfo": {"search": query["search"]},
                    "search": [
                        {"id": qid, "label": label, "description": text, "match": {"type": "alias", "text": "cat"}}
                        for qid, label, text in items.get(query["search"], [])
                    ],
                    "success": 1,
                }
            )
        if query["action"] == "wbgetentities":
            known = {"Q146": "house cat", "Q144": "dog"}
            entity = {"id": query["ids"], "labels": {"en": {"language": "en", "value": known.get(query["ids"], "")}}}
            missing = {"id": query["ids"], "missing": ""}
            return web.json_response({"entities": {query["ids"]: entity if query["ids"] in known else missing}})
        if query.get("meta") == "siteinfo":
            return web.json_response({"query": {"general": {"sitename": "Wikimedia Commons"}}})
        assert query["maxlag"] == "5"
        assert int(query["iiurlwidth"]) in LADDER
        if self.maxlag_answers:
            self.maxlag_answers -= 1
            body = {"error": {"code": "maxlag", "info": "Waiting for 10.64.48.35: 5.5 seconds lagged"}}
            return web.json_response(body, headers={"Retry-After": "1"})
        if self.too_many_answers:
            self.too_many_answers -= 1
            return web.Response(status=429, text="Too many requests", headers={"Retry-After": "1"})
        start, limit = int(query.get("gsroffset", 0)), int(query["gsrlimit"])
        assert limit <= 50
        assert query["gsrsearch"].startswith("haswbstatement:P180=Q14")
        assert start == 0 or query["continue"] == "gsroffset||"
        answer: dict[str, object] = {
            "batchcomplete": True,
            "query": {"pages": [self._page(request, n) for n in range(start, min(start + limit, self.files))][::-1]},
        }
        if start + limit < self.files:
            answer["continue"] = {"gsroffset": start + limit, "continue": "gsroffset||"}
        return web.json_response(answer)

    def _page(self, request: web.Request, n: int) -> dict[str, object]:
        page: dict[str, object] = {"pageid": 1000 + n, "ns": 6, "title": f"File:A cat {n}.jpg", "index": n + 1}
        if n % 9 == 8:
            return page
        license = ("fair use", "") if n % 7 == 6 else ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0")
        page["imageinfo"] = [
            {
                "size": 3145728,
                "width": 4000,
                "height": 3000,
                "thumburl": f"{request.scheme}://{request.host}/thumb/{n}/960px-a.jpg?utm_source=commons.wikimedia.org",
                "thumbwidth": 960,
                "url": f"https://upload.wikimedia.org/wikipedia/commons/a/ab/A_cat_{n}.jpg",
                "descriptionurl": f"https://commons.wikimedia.org/wiki/File:A_cat_{n}.jpg",
                "sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                "mime": "image/jpeg",
                "extmetadata": {
                    "LicenseShortName": {"value": license[0], "source": "commons-desc-page", "hidden": ""},
                    "LicenseUrl": {"value": license[1]},
                    "Artist": {"value": '<a href="//commons.wikimedia.org/wiki/User:X">X &amp; Y</a>'},
                },
            }
        ]
        return page


CAT = {
    "id": 118552,
    "name": "Felis catus",
    "rank": "species",
    "matched_term": "Cat",
    "preferred_common_name": "Domestic Cat",
    "iconic_taxon_name": "Mammalia",
    "is_active": True,
}
LYNX = {
    "id": 41976,
    "name": "Lynx rufus",
    "rank": "species",
    "matched_term": "Bay Lynx",
    "preferred_common_name": "Bobcat",
}


@dataclass
class Nature:
    """An iNaturalist with `research` and `casual` cats, two photos each, one of them with all rights reserved."""

    research: int = 4
    casual: int = 230

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/taxa", self.taxa)
        app.router.add_get("/v1/taxa/{id}", self.taxon)
        app.router.add_get("/v1/observations", self.observations)
        app.router.add_get("/photos/{number:\\d+}/medium.jpg", send_photo)
        return app

    async def taxa(self, request: web.Request) -> web.StreamResponse:
        found = [t for t in (LYNX, CAT) if request.query["q"].lower() in str(t).lower()]
        return web.json_response({"total_results": len(found), "page": 1, "per_page": 10, "results": found})

    async def taxon(self, request: web.Request) -> web.StreamResponse:
        found = [t for t in (LYNX, CAT) if str(t["id"]) == request.match_info["id"]]
        return web.json_response({"results": found})

    async def observations(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        assert query["order_by"] == "id"
        assert query["order"] == "asc"
        assert int(query["per_page"]) <= 200
        ids = range(1, self.research + 1) if query["quality_grade"] == "research" else range(500, 500 + self.casual)
        found = [i for i in ids if i > int(query["id_above"])][: int(query["per_page"])]
        return web.json_response(
            {
                "total_results": len(ids),
                "page": 1,
                "per_page": 200,
                "results": [self._observation(request, i) for i in found],
            }
        )

    def _observation(self, request: web.Request, number: int) -> dict[str, object]:
        codes = ["cc-by", "cc-by-nc", None, "cc0"]
        return {
            "id": number,
            "uuid": f"c44b91f3-534d-48c4-933d-{number:012d}",
            "quality_grade": "research" if number < 500 else "casual",
            "user": {"login": "samroom"},
            "taxon": {"id": 118552, "name": "Felis catus", "rank": "species"},
            "photos": [
                {
                    "id": number * 10 + i,
                    "license_code": codes[(number + i) % 4],
                    "url": f"{request.scheme}://{request.host}/photos/{number * 10 + i}/square.jpg",
                    "attribution": "(c) samroom, some rights reserved (CC BY)",
                    "flags": [],
                }
                for i in range(2)
            ],
        }


@dataclass
class Viewer:
    """The data set `me/pets` with cat and dog in train and test, 130 and 20 of each."""

    licensed: bool = True

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/splits", self.splits)
        app.router.add_get("/rows", self.rows)
        app.router.add_get("/filter", self.filter)
        app.router.add_get("/api/datasets/me/pets", self.card)
        app.router.add_get("/cached-assets/{number:\\d+}/image.jpg", self.asset)
        return app

    features = (
        {"feature_idx": 0, "name": "img", "type": {"_type": "Image"}},
        {"feature_idx": 1, "name": "label", "type": {"names": ["cat", "dog"], "_type": "ClassLabel"}},
    )

    async def splits(self, request: web.Request) -> web.StreamResponse:
        found = [{"dataset": "me/pets", "config": "default", "split": split} for split in ("train", "test")]
        return web.json_response({"splits": found, "pending": [], "failed": []})

    async def rows(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"features": self.features, "rows": [], "num_rows_total": 300, "partial": False})

    async def filter(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        assert query["where"] in ('"label"=0', '"label"=1')
        assert int(query["length"]) <= 100
        total = 130 if query["split"] == "train" else 20
        base = int(query["where"][-1]) * 10_000 + (0 if query["split"] == "train" else 5000)
        start = int(query["offset"])
        rows = [
            {
                "row_idx": base + i,
                "row": {
                    "img": {
                        "src": f"{request.scheme}://{request.host}/cached-assets/{base + i}/image.jpg?{SIGNED}",
                        "height": 120,
                        "width": 160,
                    },
                    "label": int(query["where"][-1]),
                },
                "truncated_cells": [],
            }
            for i in range(start, min(start + int(query["length"]), total))
        ]
        return web.json_response(
            {
                "features": self.features,
                "rows": rows,
                "num_rows_total": total,
                "num_rows_per_page": 100,
                "partial": False,
            }
        )

    async def card(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "me/pets", "sha": "abc123", "cardData": {"license": "cc-by-4.0"}})

    async def asset(self, request: web.Request) -> web.StreamResponse:
        if "Signature=a%2Fb~c" not in request.raw_path:
            raise web.HTTPForbidden(text="SignatureDoesNotMatch")
        return await send_photo(request)
