"""ONNX Runtime for the browser: one pinned version of its npm package, checked, unpacked, kept in the cache."""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from potstill.errors import ExportError
from potstill.monitoring.progress import Reporter
from potstill.run.cache import cache_folder
from potstill.run.files import write_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as the npm registry states it. Belongs to VERSION: change both together."""

FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",  # not .mjs: some hosts do not know its type
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""What the page needs of the archive, and its name in the page's folder: the smallest build, for CPUs, no WebGPU."""

TIMEOUT_SECONDS = 600

LICENSES = f"""ort.js and ort-wasm-simd-threaded.wasm are ONNX Runtime, from the npm package {PACKAGE} {VERSION}.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def get_runtime(reporter: Reporter) -> Path:
    """The folder that holds the runtime's files, fetched at the first call.

    Raises:
        ExportError: npm is missing, cannot get the package, or what came is not the pinned version.
    """
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not all((folder / target).is_file() for target in FILES.values()):
        reporter.info(f"Getting {PACKAGE} {VERSION} with npm (once, about 30 MB)")
        unpack(_pack(), folder)
    return folder


def unpack(archive: bytes, folder: Path) -> None:
    """Write the runtime's files from the package's archive. Raises ExportError when it is not the pinned one."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise ExportError(
            f"The archive of {PACKAGE} {VERSION} is not the one that Potstill was written for:\n"
            f"    got      {found}\n    expected {INTEGRITY}\n"
            "  Nothing was written. Empty npm's cache (npm cache clean --force), and try again."
        )
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name, target in FILES.items():
            member = tar.extractfile(name)
            assert member is not None, name
            write_bytes(folder / target, member.read())


def _pack() -> bytes:
    """The package's archive, downloaded by npm; scripts of packages are not run."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            f"--to web needs npm to get {PACKAGE} {VERSION} once. Install Node.js with npm "
            "(Debian: apt-get install npm), and run the same command again."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--prefer-offline", "--silent"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(f"npm did not get {PACKAGE} {VERSION} within {TIMEOUT_SECONDS} s. Try again.") from None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            reason = (done.stderr or done.stdout).strip()[-600:] or f"npm ended with code {done.returncode}"
            raise ExportError(
                f"npm could not get {PACKAGE} {VERSION}:\n{reason}\n  Check the network and npm's registry."
            )
        return archives[0].read_bytes()
