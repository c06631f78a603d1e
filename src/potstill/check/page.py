"""A page of thumbnails, one section per reason: what `check` found, to review before anything is deleted."""

import base64
import html
import io
from itertools import groupby
from pathlib import Path

from PIL import Image

from potstill.check.run import PAGE, REPORT, CheckResult, Finding
from potstill.images.decode import decode_file
from potstill.images.errors import BadPhotoError
from potstill.images.folder import plain_name
from potstill.images.reasons import action, meaning
from potstill.run import files
from potstill.wording import counted

PER_REASON = 60
"""Thumbnails shown per reason; the rest is in check.json."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1b1b; }
h2 { margin: 2.2rem 0 .2rem; } h2 small { font-weight: normal; color: #666; } p { margin: .2rem 0 1rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
ul { padding: 0; list-style: none; }
li { border: 1px solid #ddd; border-radius: 6px; padding: .5rem; overflow-wrap: anywhere; font-size: 12px; }
.pair { display: flex; gap: .3rem; } img { width: 100%; height: 7rem; object-fit: contain; background: #f3f3f3; }
.none { height: 7rem; background: #f3f3f3; display: grid; place-content: center; color: #888; flex: 1; }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #e6e6e6; } li { border-color: #3a3d42; }
  img, .none { background: #24272b; } h2 small { color: #aaa; } }
"""


def write_page(result: CheckResult) -> Path:
    """Write `check.html`, and all findings as `check.json`, into the photo folder. Returns the page."""
    files.write_json(result.root / REPORT, result.as_json())
    sections = []
    for code, group in groupby(result.findings, key=lambda finding: finding.code):
        found = list(group)
        items = "".join(_item(result.root, finding) for finding in found[:PER_REASON])
        more = f"<p>and {len(found) - PER_REASON:,} more in check.json</p>" if len(found) > PER_REASON else ""
        what = "listed only" if action(code) == "note" else "quarantine"
        head = f"<h2>{code} <small>{len(found):,} · {what}</small></h2><p>{html.escape(meaning(code))}</p>"
        sections.append(f"{head}<ul>{items}</ul>{more}")
    body = "".join(sections) or "<p>No problems found.</p>"
    title = f"Check of {html.escape(result.root.resolve().name)}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{counted(result.photos, 'photo')} checked, {len(result.to_move):,} for quarantine.</p>{body}</html>\n"
    )
    files.write_text(result.root / PAGE, page)
    return result.root / PAGE


def _item(root: Path, finding: Finding) -> str:
    pictures = _picture(root / finding.path) + (_picture(root / finding.other) if finding.other else "")
    text = [html.escape(plain_name(finding.path))]
    if finding.other:
        text.append(f"other photo: {html.escape(plain_name(finding.other))}")
    if finding.detail:
        text.append(html.escape(finding.detail))
    if finding.score is not None:
        text.append(f"probability of its label {finding.score:.3f}")
    return f'<li><div class="pair">{pictures}</div>{"<br>".join(text)}</li>'


def _picture(path: Path) -> str:
    try:
        image = decode_file(path, short_side=112).image
    except BadPhotoError as error:
        return f'<div class="none">{html.escape(error.code)}</div>'
    image.thumbnail((224, 112), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}">'
