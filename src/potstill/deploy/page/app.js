// Sends a photo to this page's own server and shows what three models answer. All text is set as text, never as markup.
const SECONDS_WHEN_BUSY = [1, 2, 4];

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`;

let stream = null;
let address = ""; // Of the photo that is shown.
let turn = 0; // A newer photo makes older answers void.

async function show(file) {
  const mine = ++turn;
  stopCamera();
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  at("picture").src = address;
  at("picture").hidden = at("clear").hidden = false;
  at("hint").hidden = true;
  at("answers").replaceChildren();
  say("Looking …");
  let found;
  try {
    found = await ask(file, mine);
  } catch {
    found = { refused: "The page's server does not answer. It may have been stopped, or the file is too large for it." };
  }
  if (mine !== turn) return;
  if (found.refused) {
    at("picture").hidden = true; // Browsers show nothing of what is no picture.
    at("hint").hidden = false;
    say(found.refused, "refused");
  } else {
    say("");
    at("answers").replaceChildren(...found.predictions.map(column));
  }
}

// Where many ask at once, the server says so, and is asked again a little later.
async function ask(file, mine) {
  for (const seconds of [...SECONDS_WHEN_BUSY, 0]) {
    const response = await fetch("classify", { method: "POST", body: file });
    if (response.status !== 503 || !seconds || mine !== turn) return response.json();
    say("Many photos are waiting. Yours is next in a moment …");
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (0.5 + Math.random())));
  }
}

function column(answer) {
  const section = element("section", "", `answer ${answer.arm}`);
  section.dataset.arm = answer.arm;
  const labels = answer.labels ?? [answer.label]; // Several where each class has a threshold of its own.
  section.dataset.label = labels.join("|");
  if (answer.label !== undefined) section.dataset.probability = answer.probability.toFixed(6);
  section.append(element("h3", answer.arm), element("p", labels.join(", ") || "None of the classes", "best"));
  if (answer.known === false) section.append(element("p", "Unsure: perhaps not one of these classes.", "unsure"));
  if (answer.operating_point) {
    const { class_name, threshold, recall } = answer.operating_point;
    section.append(element("p", `${class_name} from ${percent(threshold)} on, to find ${+(100 * recall).toFixed(2)} % of it.`, "cost"));
  }
  const ranked = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a);
  const first = answer.thresholds ? [...ranked.filter(([name]) => labels.includes(name)), ...ranked.filter(([name]) => !labels.includes(name))] : ranked;
  const list = element("ul");
  for (const [name, share] of first.slice(0, answer.shown)) {
    list.append(answer.thresholds ? decision(name, share, answer.thresholds[name], labels.includes(name)) : bar(name, share));
  }
  section.append(list);
  const more = ranked.length - answer.shown;
  if (more > 0) section.append(element("small", `and ${more} more ${more === 1 ? "class" : "classes"}`));
  const cost = `${answer.milliseconds.toFixed(1)} ms · ${answer.megabytes.toFixed(2)} MB · ${answer.model}`;
  section.append(element("p", cost, "cost"));
  return section;
}

function bar(name, share, spoken = `${name}: ${percent(share)}`) {
  const item = element("li");
  const meter = element("meter");
  meter.value = share;
  meter.setAttribute("aria-label", spoken);
  item.append(element("span", name, "name"), element("span", percent(share), "share"), meter);
  return item;
}

// A class that the photo has from its threshold on, whatever the others are.
function decision(name, share, threshold, has) {
  const words = `${has ? "yes" : "no"} (threshold ${percent(threshold)})`;
  const item = bar(name, share, `${name}: ${percent(share)}, ${words}`);
  item.className = has ? "has" : "has-not";
  const mark = element("span", "", "mark");
  mark.style.left = `${100 * threshold}%`;
  item.append(mark, element("small", words));
  return item;
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function say(text, kind = "") {
  at("status").textContent = text;
  at("status").className = kind;
}

function clear() {
  turn++;
  stopCamera();
  at("picture").hidden = at("clear").hidden = true;
  at("hint").hidden = false;
  at("answers").replaceChildren();
  say("Ready for a photo.");
  at("choose").focus();
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch {
    say("There is no camera, or this page may not use it. Choose a photo instead.", "refused");
    return;
  }
  turn++;
  at("video").srcObject = stream;
  await at("video").play();
  at("video").hidden = at("shoot").hidden = at("clear").hidden = false;
  at("camera").hidden = at("picture").hidden = at("hint").hidden = true;
  at("shoot").focus();
}

function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = at("video").videoWidth;
  canvas.height = at("video").videoHeight;
  canvas.getContext("2d").drawImage(at("video"), 0, 0);
  canvas.toBlob((blob) => blob && show(blob), "image/jpeg", 0.95);
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = at("video").srcObject = null;
  at("video").hidden = at("shoot").hidden = true;
  at("camera").hidden = false;
}

at("camera").hidden = !navigator.mediaDevices?.getUserMedia; // Browsers allow it on https and on this machine only.
at("choose").addEventListener("click", () => at("file").click());
at("camera").addEventListener("click", startCamera);
at("shoot").addEventListener("click", shoot);
at("clear").addEventListener("click", clear);
at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) show(file);
});
at("file").addEventListener("click", () => {
  at("file").value = ""; // The same file may be chosen again.
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
  if (file) show(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((candidate) => candidate.type.startsWith("image/"));
  if (file) show(file);
  else say("There is no picture in what was pasted.", "refused");
});
