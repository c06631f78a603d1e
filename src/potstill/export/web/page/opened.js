// Browsers load neither modules nor WebAssembly from a double-clicked file: say so instead of staying silent.
if (location.protocol === "file:") {
  document.getElementById("status").textContent =
    "This page has to come from a web server. In its folder, run: python3 -m http.server --bind 127.0.0.1, " +
    "then open http://127.0.0.1:8000";
}
