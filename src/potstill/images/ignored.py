"""Files and folders that are no photos by their names.

A file without an extension, or with one that is not listed here, may be a photo: it is opened, and rejected with a
reason where it is none.
"""

from dataclasses import dataclass

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini"}
_SYSTEM_FOLDERS = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "@transcode", "#recycle", "#snapshot",
    "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
    "__pycache__",
}  # fmt: skip
"""Of macOS, Windows, Synology and QNAP, in lower case. The thumbnails in @eaDir would pass for photos."""

_OTHER_EXTENSIONS = """
txt text md rst rtf log csv tsv json jsonl ndjson geojson xml yaml yml toml ini cfg conf names data html htm css js ts
py pyc ipynb r m sh bat sql tex bib srt vtt pbtxt prototxt manifest lst list license
npy npz h5 hdf5 hdf mat pkl pickle joblib parquet feather arrow tfrecord tfrecords record rec idx lmdb mdb db sqlite
sqlite3 pt pth ckpt safetensors onnx pb tflite caffemodel weights
pdf doc docx odt xls xlsx ods ppt pptx odp pages numbers key epub
zip tar gz tgz bz2 tbz2 xz txz zst 7z rar cab iso dmg
mp4 m4v mov avi mkv webm wmv flv mpg mpeg 3gp mts m2ts vob mp3 wav flac ogg oga m4a aac wma opus mid
aae xmp thm lrv lrcat lrdata pp3 dop on1 url lnk webloc desktop part crdownload partial download tmp temp bak old swp
lock md5 sha1 sha256 sfv torrent nfo exe dll msi app apk
"""
"""Texts, tables and annotations; arrays, models and databases; documents; archives; video and sound; and what cameras,
browsers and file managers leave beside photos."""

_OTHER = frozenset(_OTHER_EXTENSIONS.split())

CHECK_REPORTS = ("check.html", "check.json")
"""What `potstill check` writes into the photo folder it has checked: a page, and the findings as JSON."""

OTHER = "other files"
"""The reason of what is no photo by its name."""


@dataclass(frozen=True, slots=True)
class Unused:
    """Files that are in the folder and are not used, together because of one reason."""

    name: str
    """Below the photo folder: a file, a folder with a slash at its end, or several names with commas."""
    files: int
    """How many files that are."""
    why: str
    """Part of a sentence, such as "in no class folder"."""


def is_other_file(name: str) -> bool:
    """Whether a file is no photo by its name: hidden, of the system, a text, an archive, a video …"""
    if name.startswith(".") or name.lower() in _SYSTEM_FILES or name.endswith("~"):
        return True
    stem, dot, extension = name.rpartition(".")
    return bool(stem and dot) and extension.lower() in _OTHER


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden, or belongs to the system or a file server."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
