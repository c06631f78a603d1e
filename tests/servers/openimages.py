"""Open Images: the CSV lists (Range, ETag, x-goog-hash) and the photos, from one small world."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web
from tests.servers.faults import Fault
from tests.servers.pictures import jpeg

MIDS = {"Cat": "/m/01yrx", "Dog": "/m/0bt9lr", "Bird": "/m/015p6", "Cello": "/m/01xqw", "Doll, Barbie": "/m/0167gd"}


@dataclass
class World:
    """What there is in this Open Images."""

    photos: Mapping[str, Mapping[str, int]]
    """Number of photos by subset (validation, test, train) and class name."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """By image id."""
    cut_lists_after: int = 0
    """Break off the first answer for each list after so many bytes; 0 does not."""
    tinted: bool = False
    asked: Counter[str] = field(default_factory=Counter)

    def ids(self, subset: str, name: str) -> list[str]:
        """Image ids of a class."""
        start = {"validation": 0, "test": 1 << 40, "train": 2 << 40}[subset] + list(MIDS).index(name) * (1 << 32)
        return [f"{start + i:016x}" for i in range(self.photos.get(subset, {}).get(name, 0))]

    def lists(self) -> dict[str, bytes]:
        """Every CSV file by its path."""
        rows = [f'{mid},"{name}"' if "," in name else f"{mid},{name}" for name, mid in MIDS.items()]
        files = {"v7/oidv7-class-descriptions.csv": "\r\n".join(["LabelName,DisplayName", *rows, ""]).encode()}
        paths = {
            "validation": (
                "v7/oidv7-val-annotations-human-imagelabels.csv",
                "2018_04/validation/validation-images-with-rotation.csv",
            ),
            "test": ("v7/oidv7-test-annotations-human-imagelabels.csv", "2018_04/test/test-images-with-rotation.csv"),
            "train": (
                "v5/train-annotations-human-imagelabels-boxable.csv",
                "2018_04/train/train-images-boxable-with-rotation.csv",
            ),
        }
        for subset, (labels, infos) in paths.items():
            files[labels], files[infos] = self._subset(subset)
        return files

    def _subset(self, subset: str) -> tuple[bytes, bytes]:
        labels = ["ImageID,Source,LabelName,Confidence"]
        infos = [
            "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,"
            "OriginalMD5,Thumbnail300KURL,Rotation"
        ]
        for name, mid in MIDS.items():
            for number, image_id in enumerate(self.ids(subset, name)):
                labels.append(f"{image_id},verification,{mid},{('1', '1.0')[number % 2]}")
                other = MIDS["Cello"] if name != "Cello" else MIDS["Cat"]
                labels.append(f"{image_id},crowdsource-verification,{other},{('0', '0.0')[number % 2]}")
                infos.append(
                    f"{image_id},{subset},https://farm1.staticflickr.com/1/{number}_3_o.jpg,"
                    f"https://www.flickr.com/photos/u{number % 7}/{int(image_id, 16)},"
                    f'https://creativecommons.org/licenses/by/2.0/,https://www.flickr.com/people/u/,"Doe, J",my {name},'
                    f"211079,0Sad+xMj2ttXM1U8meEJ0A==,,{('0.0', '')[number % 2]}"
                )
        return "\n".join([*labels, ""]).encode(), "\n".join([*infos, ""]).encode()


def app(world: World) -> web.Application:
    """`/lists/…` are the CSV files, `/pixels/…` the photos."""
    lists = world.lists()
    cut = set[str]()

    async def csv_file(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path not in lists:
            raise web.HTTPNotFound
        data = lists[path]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"}
        start, status = 0, 200
        if (wanted := request.headers.get("Range")) and request.headers.get("If-Range", etag) == etag:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            end = int(last) + 1 if last else len(data)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data = data[:end]
        response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(data) - start)})
        await response.prepare(request)
        if world.cut_lists_after and path not in cut and len(data) > world.cut_lists_after:
            cut.add(path)
            await response.write(data[start : start + world.cut_lists_after])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        return response

    async def photo(request: web.Request) -> web.StreamResponse:
        image_id = request.match_info["id"]
        number = int(image_id, 16)
        tint = (number >> 32) % 256 % 3 if world.tinted else -1
        body = jpeg(number, tint=tint)
        before = world.asked[image_id]
        world.asked[image_id] += 1
        if (fault := world.faults.get(image_id)) and (answer := await fault(request, body, before)):
            return answer
        return web.Response(body=body, content_type="image/jpeg", headers={"ETag": f'"{image_id}"'})

    application = web.Application()
    application.router.add_get("/lists/{path:.+}", csv_file)
    application.router.add_get("/pixels/{subset}/{id}.jpg", photo)
    return application
