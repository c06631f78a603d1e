// Labels photos by keys and buttons. The server moves the files; all text is set as text, never as markup.
const at = (id) => document.getElementById(id);

let state = null;
let busy = false; // One request at a time: a key that is held down labels one photo.
const ahead = new Image(); // The next photo, so that it is there at once.

async function send(name, values = {}) {
  if (busy) return;
  busy = true;
  try {
    const response = await fetch(name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values),
    });
    await take(response);
  } catch {
    refuse("The page's server does not respond. It may have been stopped.");
  } finally {
    busy = false;
  }
}

async function take(response) {
  const found = await response.json();
  if (found.refused) {
    refuse(found.refused);
    return;
  }
  at("refused").hidden = true;
  show(found);
}

function refuse(text) {
  at("refused").textContent = text;
  at("refused").hidden = false;
}

function show(found) {
  state = found;
  const photo = found.photo;
  at("picture").hidden = !photo;
  at("hint").hidden = Boolean(photo);
  if (photo) at("picture").src = `photo/${photo.number}`;
  else at("hint").textContent = found.skipped ? "Nothing else is left; start the page again for what was skipped." : "All photos of the list have labels.";
  at("why").textContent = photo ? photo.why : "";
  at("file").textContent = photo ? photo.path : "";
  if (found.next !== null) ahead.src = `photo/${found.next}`;
  at("classes").replaceChildren(...found.classes.map(button));
  at("skip").disabled = !photo;
  at("undo").disabled = !found.can_undo;
  at("bar").max = found.total;
  at("bar").value = found.total - found.left;
  const skipped = found.skipped ? `, ${found.skipped} skipped` : "";
  at("progress").textContent = `${found.labeled} of ${found.total} labeled${skipped}, ${found.left} left`;
}

function button(item) {
  const made = document.createElement("button");
  made.type = "button";
  made.disabled = !state.photo;
  const key = document.createElement("kbd");
  key.textContent = item.key;
  const count = document.createElement("span");
  count.className = "count";
  count.textContent = item.photos || "";
  const name = document.createElement("span");
  name.textContent = item.name;
  made.append(...(item.key ? [key] : []), name, count);
  made.addEventListener("click", () => label(item.name));
  return made;
}

function label(name) {
  if (state?.photo) send("label", { photo: state.photo.number, label: name });
}

function skip() {
  if (state?.photo) send("skip", { photo: state.photo.number });
}

at("skip").addEventListener("click", skip);
at("undo").addEventListener("click", () => send("undo"));
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !state) return;
  const key = event.key.toLowerCase();
  if (key === "s") skip();
  else if (key === "u" || key === "backspace") send("undo");
  else {
    const item = state.classes.find((candidate) => candidate.key === key);
    if (!item) return;
    label(item.name);
  }
  event.preventDefault();
});
at("picture").addEventListener("error", () => refuse("The photo cannot be shown. Skip it."));

try {
  await take(await fetch("state"));
} catch {
  refuse("The page's server does not respond. It may have been stopped.");
}
