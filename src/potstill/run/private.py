"""Text for pages and files that people pass on, without what it tells about a machine and its owner.

Absolute paths keep their last part only. E-mail addresses lose the server's name, addresses of web pages the user and
password in them, and tokens everything but their kind. `config.toml`, `log.txt` and `run.json` stay as they are: they
are for the owner of the run.
"""

import re

_PART = r"[^\s'\"<>|:*?;,()\[\]{}=/\\]"
_QUOTED = re.compile(r"""(['"])((?:file://)?/|~|[A-Za-z]:[\\/]|\\\\)([^'"\n]*[/\\])?([^'"/\\\n]*)[/\\]?\1""")
_EXTERNAL = re.compile(
    rf"""(['"])(onnx|file):(?=~|/(?!/)|[A-Za-z]:[\\/]|\\\\)([^'"\n]+)\1"""
    rf"""|\b(onnx|file):((?:~[\w.-]*/|/(?!/)|[A-Za-z]:[\\/])(?:{_PART}+[/\\]+)*{_PART}*)"""
)
"""Teachers that are files, as in `onnx:/srv/me/teacher.onnx`."""
_PATH = re.compile(
    rf"""(?<![\w.:/\\~<&$+-])(?:file://)?(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)(?:{_PART}+[/\\]+)+({_PART}*)""",
    re.ASCII | re.VERBOSE,
)
_SHORT_PATH = re.compile(r"(?<![\w.:/\\~<&$+-])/(?:root|home|tmp|mnt|data|Users|workspace|content)(?![\w/-])")
_LOGIN = re.compile(r"(?<=://)[^\s/@'\"<>]+@")
_MAIL = re.compile(r"(?<![\w.+-])([\w.+-]{1,64})@(?:[\w-]{1,63}\.)+[\w-]{2,63}")
_TOKEN = re.compile(
    r"\b(hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-(?:proj-|ant-)?|AKIA|ASIA|AIza|npm_|pypi-)[A-Za-z0-9_-]{12,}"
    r"|\b(eyJ)[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"
)
_SECRET = re.compile(
    r"\b((?:[\w-]*(?:token|password|passwd|secret|api[_-]?key|signature|credential)s?)['\"]?\s*[=:]\s*['\"]?)([^\s&'\"<>,;]{4,})",
    re.IGNORECASE,
)

GONE = "…"


def without_owner(text: str) -> str:
    """The text without paths, e-mail addresses, passwords and tokens, but with what a reader needs of them.

    `/srv/me/my photos/cats` becomes `cats`, `me@example.org` becomes `me@…`.
    """
    text = _LOGIN.sub("", text)
    text = _MAIL.sub(rf"\1@{GONE}", text)
    text = _TOKEN.sub(lambda found: (found[1] or found[2]) + GONE, text)
    text = _SECRET.sub(rf"\1{GONE}", text)
    text = _EXTERNAL.sub(_named_only, text)
    text = _QUOTED.sub(lambda found: f"{found[1]}{found[4] or last_part(found[3] or '')}{found[1]}", text)
    text = _PATH.sub(lambda found: found[1] or last_part(found[0]), text)
    return _SHORT_PATH.sub(GONE, text)


def _named_only(found: re.Match[str]) -> str:
    quote, kind, path = (found[1], found[2], found[3]) if found[2] else ("", found[4], found[5])
    return f"{quote}{kind}:{last_part(path)}{quote}"


def last_part(path: str) -> str:
    """The name at the end of a path of any system."""
    parts = [part for part in re.split(r"[/\\]", path) if part and part != "~"]
    return parts[-1] if parts else GONE
