"""A model hub as huggingface_hub speaks to it: repositories, preupload, LFS, commits, and downloads."""

import base64
import hashlib
import json
from dataclasses import dataclass, field

import yaml
from aiohttp import web

TOKEN = "hf_loopback"


@dataclass
class Hub:
    """What the hub keeps."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by name, by OWNER/NAME."""
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """The first line of each."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256."""


def app(hub: Hub) -> web.Application:
    """The server of `hub`. Files of 100 kB and more, and binary formats, go by LFS, as on the public hub."""
    routes = web.RouteTableDef()

    def allow(request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized(headers={"X-Error-Message": "Invalid username or password."})

    def name_of(request: web.Request) -> str:
        return f"{request.match_info['owner']}/{request.match_info['name']}"

    @routes.post("/api/repos/create")
    async def create(request: web.Request) -> web.Response:
        allow(request)
        wanted = await request.json()
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{request.url.origin()}/{name}"
        if name in hub.repositories:
            return web.json_response({"url": url, "error": "You already created this model repo"}, status=409)
        hub.repositories[name] = {}
        hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        return web.json_response({"url": url, "name": name})

    @routes.post("/api/validate-yaml")
    async def validate(request: web.Request) -> web.Response:
        card = (await request.json())["content"].split("---\n")[1]
        known = {"library_name", "pipeline_tag", "license", "license_name", "license_link", "tags", "metrics"}
        odd = set(yaml.safe_load(card)) - known - {"model-index"}
        errors = [{"message": f"{sorted(odd)} is unknown"}] if odd else []
        return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)

    @routes.post("/api/models/{owner}/{name}/preupload/main")
    async def preupload(request: web.Request) -> web.Response:
        allow(request)
        files = (await request.json())["files"]
        answer = []
        for file in files:
            large = file["size"] > 100_000 or file["path"].endswith((".safetensors", ".onnx", ".pt2"))
            answer.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}
            )
        return web.json_response({"files": answer})

    @routes.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(request: web.Request) -> web.Response:
        allow(request)
        wanted = await request.json()
        assert wanted["operation"] == "upload"
        objects = []
        for entry in wanted["objects"]:
            upload = {"href": f"{request.url.origin()}/blobs/{entry['oid']}"}
            actions = {} if entry["oid"] in hub.blobs else {"actions": {"upload": upload}}
            objects.append({**entry, **actions})
        return web.json_response({"transfer": "basic", "objects": objects})

    @routes.put("/blobs/{oid}")
    async def put_blob(request: web.Request) -> web.Response:
        data = await request.read()
        oid = request.match_info["oid"]
        if hashlib.sha256(data).hexdigest() != oid:
            raise web.HTTPBadRequest()
        hub.blobs[oid] = data
        return web.Response()

    @routes.post("/api/models/{owner}/{name}/commit/main")
    async def commit(request: web.Request) -> web.Response:
        allow(request)
        files = hub.repositories[name_of(request)]
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                hub.commits.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
        oid = f"{len(hub.commits):040x}"
        url = f"{request.url.origin()}/{name_of(request)}/commit/{oid}"
        return web.json_response({"commitUrl": url, "commitOid": oid, "success": True})

    @routes.get("/{owner}/{name}/resolve/{revision}/{path:.+}")
    async def resolve(request: web.Request) -> web.Response:
        files = hub.repositories.get(name_of(request), {})
        path = request.match_info["path"]
        if path not in files:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "1" * 40})
        headers = {
            "ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"',
            "X-Repo-Commit": f"{len(hub.commits):040x}",
            "Accept-Ranges": "bytes",
        }
        return web.Response(body=files[path], headers=headers)

    application = web.Application(client_max_size=2**30)
    application.add_routes(routes)
    return application
