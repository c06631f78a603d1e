// Runs the student on photos and on the camera. The ONNX file holds the whole preprocessing; here a photo is only
// decoded, turned upright and cut to its center square, which the file would do, too.
import * as ort from "./ort.js";
import { decode, turn as turnPen } from "./photo.js";

const SMALLEST = 16;
const LARGEST = 4096; // Phones refuse larger canvases.
const SHOWN = 5;
const SHOWN_LABELS = 40; // Where a photo may have several; those that it has are all shown.
const NEARLY_WHITE = 248;
const LIVE_PAUSE = 150; // Milliseconds between two looks at the camera.

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`;

let session = null;
let model = null;
let stream = null;
let turn = 0; // A newer photo makes older answers void.

async function start() {
  ort.env.wasm.numThreads = 1; // More need headers that plain static hosts do not send.
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
  model = await (await fetched("model.json")).json();
  describe();
  const file = new Uint8Array(await (await fetched("student.onnx")).arrayBuffer());
  session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  await classify(new Uint8Array(64 * 64 * 3), 64); // The first answer takes longer; nobody should wait for it.
  at("choose").disabled = false;
  at("camera").disabled = !navigator.mediaDevices?.getUserMedia;
  say("Ready for a photo.");
  document.body.dataset.ready = "yes";
}

async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response;
}

const counted = (number, one, many) => `${number} ${number === 1 ? one : many}`;

function describe() {
  const names = model.classes.slice(0, 12).join(", ") + (model.classes.length > 12 ? ` and ${model.classes.length - 12} more` : "");
  document.title = `Try a photo: ${names}`;
  at("lead").textContent = `Which of these does it show${model.thresholds ? ", one, several or none" : ""}: ${names}? The model runs in your browser; photos never leave this device.`;
  const a = model.accuracy;
  at("about").textContent =
    `${model.name}, ${(model.bytes / 1e6).toFixed(2)} MB, distilled from ${model.teacher}. ${model.thresholds ? "mAP" : "Accuracy"} ${percent(a.value)} ` +
    `(${+(100 * model.confidence).toFixed(1)} % interval ${(100 * a.low).toFixed(1)} to ${(100 * a.high).toFixed(1)}) on ${counted(model.test_photos, "test photo", "test photos")}.`;
  at("attribution").textContent = model.attribution ? `Photos that it learned from: ${model.attribution}` : "";
}

// (S, S, 3) bytes → { probabilities, milliseconds }
async function classify(rgb, side) {
  const began = performance.now();
  const image = new ort.Tensor("uint8", rgb, [side, side, 3]);
  const { probabilities } = await session.run({ image });
  return { probabilities: Array.from(probabilities.data), milliseconds: performance.now() - began };
}

// Draws the center square of an image or video frame, stored with this orientation, onto the canvas and returns its bytes.
function square(source, storedWidth, storedHeight, orientation = 1, background = "white") {
  const [width, height] = orientation > 4 ? [storedHeight, storedWidth] : [storedWidth, storedHeight];
  const cut = Math.min(width, height);
  if (cut < SMALLEST) throw new Refusal(`It has ${width} × ${height} pixels; the smallest side must be ${SMALLEST}.`);
  const side = Math.min(cut, LARGEST);
  const canvas = at("picture");
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  pen.fillStyle = background; // What shows through transparent pixels.
  pen.fillRect(0, 0, side, side);
  pen.imageSmoothingEnabled = side !== cut;
  pen.imageSmoothingQuality = "high";
  pen.scale(side / cut, side / cut);
  pen.translate(-Math.floor((width - cut) / 2), -Math.floor((height - cut) / 2));
  turnPen(pen, orientation, storedWidth, storedHeight);
  pen.drawImage(source, 0, 0);
  const rgba = pen.getImageData(0, 0, side, side).data;
  const rgb = new Uint8Array(side * side * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return { rgb, side };
}

// The center square of a photo on white; on black where nothing would show on white, as in Potstill.
function photoSquare(bitmap, orientation) {
  const onWhite = square(bitmap, bitmap.width, bitmap.height, orientation);
  if (onWhite.rgb.some((value) => value < NEARLY_WHITE)) return onWhite;
  const onBlack = square(bitmap, bitmap.width, bitmap.height, orientation, "black");
  return onBlack.rgb.some((value) => value > 0) ? onBlack : square(bitmap, bitmap.width, bitmap.height, orientation);
}

class Refusal extends Error {}

async function show(blob) {
  const mine = ++turn;
  stopCamera();
  say("Looking …");
  try {
    if (blob.size === 0) throw new Refusal("The file is empty.");
    let bitmap, orientation;
    try {
      ({ bitmap, orientation } = await decode(blob, model.gray_levels));
    } catch {
      throw new Refusal("This browser cannot read it as a picture. JPEG, PNG and WebP work everywhere.");
    }
    const { rgb, side } = photoSquare(bitmap, orientation);
    bitmap.close();
    at("picture").hidden = false;
    at("picture").setAttribute("aria-label", `Your photo: its center, ${side} × ${side} pixels`);
    at("hint").hidden = true;
    const answer = await classify(rgb, side);
    if (mine === turn) tell(answer, true);
  } catch (error) {
    if (mine === turn) refuse(error);
  }
}

function refuse(error) {
  at("bars").hidden = true;
  at("more").textContent = "";
  at("picture").hidden = true;
  at("hint").hidden = false;
  const reason = error instanceof Refusal ? error.message : "The model could not look at it. Please try another photo.";
  say(`This file cannot be used as a photo. ${reason}`, "refused");
  delete at("answer").dataset.probabilities;
}

// The class by the operating point, if the model has one, or else the most probable one.
function predicted(probabilities, order) {
  const point = model.operating_point;
  if (!point) return order[0];
  const flagged = model.classes.indexOf(point.class_name);
  return probabilities[flagged] >= point.threshold ? flagged : order.find((index) => index !== flagged);
}

function tell({ probabilities, milliseconds }, spoken) {
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  if (model.thresholds) tellLabels(probabilities, order, spoken);
  else tellClass(probabilities, order, spoken);
  const rest = model.classes.length - at("bars").children.length;
  at("bars").hidden = false;
  at("more").textContent = (rest > 0 ? `And ${counted(rest, "more class", "more classes")}. ` : "") + `${milliseconds.toFixed(0)} ms on this device.`;
  at("answer").dataset.probabilities = JSON.stringify(probabilities);
}

function tellClass(probabilities, order, spoken) {
  const known = probabilities[order[0]] >= model.threshold;
  const place = predicted(probabilities, order);
  const [name, share] = [model.classes[place], probabilities[place]];
  say(known ? `${name}, ${percent(share)}` : `Perhaps not one of these classes. Nearest: ${name}, ${percent(share)}`, known ? "known" : "unsure", spoken);
  at("bars").replaceChildren(...order.slice(0, SHOWN).map((index) => bar(model.classes[index], probabilities[index])));
  at("answer").dataset.label = name;
}

// Where a photo may have several labels, each class has a threshold of its own.
function tellLabels(probabilities, order, spoken) {
  const has = (index) => probabilities[index] >= model.thresholds[index];
  const [yes, no] = [order.filter(has), order.filter((index) => !has(index))];
  const labels = yes.map((index) => model.classes[index]);
  say(labels.join(", ") || "None of the classes", "known", spoken);
  const shown = [...yes, ...no].slice(0, Math.max(SHOWN_LABELS, yes.length));
  at("bars").replaceChildren(...shown.map((index) => decision(index, probabilities[index], has(index))));
  at("answer").dataset.label = labels.join("|");
}

function decision(index, share, has) {
  const threshold = model.thresholds[index];
  const words = `${has ? "yes" : "no"} (threshold ${percent(threshold)})`;
  const item = bar(model.classes[index], share, words);
  item.className = has ? "has" : "has-not";
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.style.left = `${100 * threshold}%`;
  const note = document.createElement("small");
  note.textContent = words;
  item.append(mark, note);
  return item;
}

function bar(name, share, words = "") {
  const item = document.createElement("li");
  const label = document.createElement("span");
  label.className = "name";
  label.textContent = name;
  const value = document.createElement("span");
  value.className = "share";
  value.textContent = percent(share);
  const meter = document.createElement("span");
  meter.className = "meter";
  meter.setAttribute("role", "meter");
  meter.setAttribute("aria-valuenow", share.toFixed(4));
  meter.setAttribute("aria-valuemin", "0");
  meter.setAttribute("aria-valuemax", "1");
  meter.setAttribute("aria-label", `${name}: ${percent(share)}${words && `, ${words}`}`);
  const filled = document.createElement("span");
  filled.style.width = `${100 * share}%`;
  meter.append(filled);
  item.append(label, value, meter);
  return item;
}

// A screen reader speaks the status; not several times a second while the camera is on.
function say(text, kind = "", spoken = true) {
  at("status").setAttribute("aria-live", spoken ? "polite" : "off");
  at("status").className = `status ${kind}`;
  at("status").textContent = text;
}

async function startCamera() {
  const mine = ++turn;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch {
    say("There is no camera, or this page may not use it. Choose a photo instead.", "refused");
    return;
  }
  const video = at("video");
  video.srcObject = stream;
  await video.play();
  cameraButtons(true);
  say("The camera is on.");
  at("shoot").focus();
  while (stream && mine === turn) {
    await look(false);
    await new Promise((resolve) => setTimeout(resolve, LIVE_PAUSE));
  }
}

async function look(spoken) {
  const video = at("video");
  if (!video.videoWidth) return;
  const { rgb, side } = square(video, video.videoWidth, video.videoHeight);
  const mine = turn;
  const answer = await classify(rgb, side);
  if (mine === turn) tell(answer, spoken);
}

async function shoot() {
  turn++;
  await look(true);
  at("picture").setAttribute("aria-label", "The photo that you took");
  stopCamera();
  at("picture").hidden = false;
  at("hint").hidden = true;
  at("camera").focus();
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  at("video").srcObject = null;
  cameraButtons(false);
}

function cameraButtons(on) {
  at("video").hidden = !on;
  at("picture").hidden = true;
  at("hint").hidden = on;
  at("camera").hidden = on;
  at("shoot").hidden = at("stop").hidden = !on;
}

at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) show(file);
  at("file").value = ""; // The same file may be chosen again.
});
at("camera").addEventListener("click", startCamera);
at("shoot").addEventListener("click", shoot);
at("stop").addEventListener("click", () => {
  turn++;
  stopCamera();
  say("The camera is off.");
  at("camera").focus();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, () => at("drop").classList.remove("over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file && session) show(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((candidate) => candidate.type.startsWith("image/"));
  if (file && session) show(file);
  else if (session) say("There is no picture in what was pasted.", "refused");
});

start().catch((error) => {
  console.error(error);
  say("The model could not be loaded. Please load the page again; an up-to-date browser is needed.", "refused");
});
