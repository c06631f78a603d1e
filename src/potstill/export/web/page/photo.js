// Reads a photo file as Potstill does in Python: the same turn, the same colors, the same gray levels. The rules are
// those of `potstill.images`: orientation.py, depth.py and decode.py.

const ORIENTATION = 0x0112;
const XMP = /tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]/;
const INTEGERS = { 1: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4 }; // Bytes, by EXIF's number of the type.
const ASCII = 2;
const UNUSED = new Set(["eXIf", "gAMA", "cHRM", "cICP", "mDCV", "cLLI", "iTXt", "tEXt", "zTXt"]); // Python ignores them, too.

// The photo as it is stored, and how it is turned: { bitmap, orientation }. The file's metadata is taken out before the
// browser sees it, because browsers differ in what they make of it.
export async function decode(blob, levels) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const { parts, exif, xmp } = split(bytes);
  const deep = await deepGray(bytes, levels);
  const options = { premultiplyAlpha: "none" }; // Color profiles are followed: canvases are sRGB.
  const bitmap = await createImageBitmap(deep ?? new Blob(parts, { type: blob.type }), options);
  return { bitmap, orientation: orientationOf(exif, xmp) };
}

// Turns what is drawn next: a picture of width × height, stored with this orientation, becomes upright.
export function turn(pen, orientation, width, height) {
  const turns = {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  };
  if (turns[orientation]) pen.transform(...turns[orientation]);
}

export function orientationOf(exif, xmp) {
  for (const block of exif) {
    const found = fromExif(block);
    if (found !== null) return found;
  }
  for (const packet of xmp) {
    const match = XMP.exec(text(packet.subarray(0, 2 ** 20)));
    if (match) return Number(match[1]);
  }
  return 1;
}

function fromExif(block) {
  while (text(block.subarray(0, 5)) === "Exif\0") block = block.subarray(6);
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const mark = text(block.subarray(0, 4));
  const little = mark === "II*\0";
  if ((!little && mark !== "MM\0*") || view.byteLength < 8) return null;
  const start = view.getUint32(4, little);
  if (start + 2 > view.byteLength) return null;
  const end = Math.min(start + 2 + 12 * view.getUint16(start, little), view.byteLength - 11);
  for (let place = start + 2; place < end; place += 12) {
    if (view.getUint16(place, little) === ORIENTATION) return fromEntry(view, place, little);
  }
  return null;
}

function fromEntry(view, place, little) {
  const kind = view.getUint16(place + 2, little);
  const count = view.getUint32(place + 4, little);
  const size = kind === ASCII ? 1 : INTEGERS[kind];
  if (!size || count === 0) return null;
  const at = size * count <= 4 ? place + 8 : view.getUint32(place + 8, little);
  if (at + size > view.byteLength) return null;
  let value = size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, little) : view.getUint32(at, little);
  if (kind === ASCII) value -= 48;
  return value >= 1 && value <= 8 ? value : null;
}

const text = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

// The file without metadata, as parts, and the metadata. Files of other kinds stay whole.
function split(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return splitJpeg(bytes);
  if (isPng(bytes)) return splitPng(bytes);
  if (text(bytes.subarray(0, 4)) === "RIFF" && text(bytes.subarray(8, 12)) === "WEBP") return splitWebp(bytes);
  return { parts: [bytes], exif: [], xmp: [] };
}

function splitJpeg(bytes) {
  const found = { parts: [], exif: [], xmp: [] };
  let from = 0;
  let place = 2;
  for (;;) {
    while (bytes[place] === 0xff && bytes[place + 1] === 0xff) place++;
    const marker = bytes[place + 1];
    const end = place + 2 + 256 * bytes[place + 2] + bytes[place + 3];
    if (bytes[place] !== 0xff || !(end <= bytes.length) || marker === 0xd9 || marker === 0xda) break;
    const body = bytes.subarray(place + 4, end);
    const isExif = text(body.subarray(0, 5)) === "Exif\0";
    const isXmp = text(body.subarray(0, 29)) === "http://ns.adobe.com/xap/1.0/\0";
    if (marker === 0xe1 && (isExif || isXmp)) {
      (isExif ? found.exif : found.xmp).push(body);
      found.parts.push(bytes.subarray(from, place));
      from = end;
    }
    place = end;
  }
  found.parts.push(bytes.subarray(from));
  return found;
}

const isPng = (bytes) => text(bytes.subarray(0, 8)) === "\x89PNG\r\n\x1a\n";

function* pngChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let place = 8; place + 12 <= bytes.length; ) {
    const end = place + 12 + view.getUint32(place);
    if (end > bytes.length) return;
    const kind = text(bytes.subarray(place + 4, place + 8));
    yield { kind, start: place, end, body: bytes.subarray(place + 8, end - 4) };
    if (kind === "IEND") return;
    place = end;
  }
}

function splitPng(bytes) {
  const found = { parts: [], exif: [], xmp: [] };
  let from = 0;
  for (const { kind, start, end, body } of pngChunks(bytes)) {
    if (kind === "eXIf") found.exif.push(body);
    if (kind === "iTXt" && text(body.subarray(0, 20)) === "XML:com.adobe.xmp\0\0\0") found.xmp.push(body);
    if (UNUSED.has(kind)) {
      found.parts.push(bytes.subarray(from, start));
      from = end;
    }
  }
  found.parts.push(bytes.subarray(from));
  return found;
}

function splitWebp(bytes) {
  const found = { parts: [bytes.slice()], exif: [], xmp: [] };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let place = 12; place + 8 <= bytes.length; ) {
    const length = view.getUint32(place + 4, true);
    const kind = text(bytes.subarray(place, place + 4));
    if (kind === "EXIF" || kind === "XMP ") {
      (kind === "EXIF" ? found.exif : found.xmp).push(bytes.subarray(place + 8, place + 8 + length));
      found.parts[0][place] = found.parts[0][place + 1] = 0x5f; // "__IF", "__P ": nothing that decoders know.
    }
    place += 8 + length + (length % 2);
  }
  return found;
}

// A gray PNG with 16 bits, scaled to 8 by the model's levels; null for other files, and where the model has no levels.
async function deepGray(bytes, levels) {
  if (!isPng(bytes) || bytes[24] !== 16 || bytes[25] !== 0 || bytes[28] !== 0) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = view.getUint32(16);
  const height = view.getUint32(20);
  const data = [...pngChunks(bytes)].filter(({ kind }) => kind === "IDAT").map(({ body }) => body);
  const stream = new Blob(data).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const line = 2 * width;
  if (rows.length < height * (line + 1)) return null;
  const values = new Uint16Array(width * height);
  let above = new Uint8Array(line);
  for (let y = 0; y < height; y++) {
    const row = rows.subarray(y * (line + 1) + 1, (y + 1) * (line + 1));
    unfilter(row, above, rows[y * (line + 1)]);
    for (let x = 0; x < width; x++) values[y * width + x] = 256 * row[2 * x] + row[2 * x + 1];
    above = row;
  }
  const [black, white] = levels?.integer ?? ownLevels(values, bytes);
  const rgba = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    const gray = Math.floor(Math.min(255, Math.max(0, (values[i] - black) * (255 / (white - black)) + 0.5)));
    rgba.set([gray, gray, gray, 255], 4 * i);
  }
  return new ImageData(rgba, width, height);
}

// White is the depth that the file declares, else the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value.
function ownLevels(values, bytes) {
  let most = 0;
  for (const value of values) most = Math.max(most, value);
  const declared = [...pngChunks(bytes)].find(({ kind }) => kind === "sBIT");
  const depths = [...(declared ? [declared.body[0]] : []), 8, 10, 12, 14, 16];
  return [0, 2 ** depths.find((bits) => most < 2 ** bits) - 1];
}

// Undoes a PNG row's filter, for two bytes per pixel.
function unfilter(row, above, filter) {
  for (let i = 0; i < row.length; i++) {
    const left = i < 2 ? 0 : row[i - 2];
    const up = above[i];
    const corner = i < 2 ? 0 : above[i - 2];
    const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
    row[i] = (row[i] + guess) & 255;
  }
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
