// Brings the regions of the page up to date as the server sends them, and lets a person draw. Without it the page is a
// snapshot.
"use strict";

const connection = document.getElementById("connection");
let over = false;

function tell(words, lost) {
  connection.textContent = words;
  connection.classList.toggle("lost", Boolean(lost));
}

// Replace a region's content; what was open, scrolled or focused in it stays so.
function replace(name, html) {
  const region = document.getElementById(name);
  if (!region || region.dataset.html === html) return;
  const open = [...region.querySelectorAll("details[open]")].map((each) => each.id);
  const scrolled = [...region.querySelectorAll(".scroll, pre")].map((each) => [each.scrollLeft, each.scrollTop]);
  const focusable = "summary, .scroll, pre";
  const focused = [...region.querySelectorAll(focusable)].indexOf(document.activeElement);
  region.innerHTML = html;
  region.dataset.html = html;
  open.forEach((id) => { const each = document.getElementById(id); if (each) each.open = true; });
  region.querySelectorAll(".scroll, pre").forEach((each, number) => {
    if (scrolled[number]) [each.scrollLeft, each.scrollTop] = scrolled[number];
  });
  if (focused >= 0) region.querySelectorAll(focusable)[focused]?.focus({preventScroll: true});
  if (name === "draw") prepareCanvas();
}

const source = new EventSource("/events");
source.addEventListener("open", () => tell("live", false));
source.addEventListener("regions", (event) => {
  for (const [name, html] of Object.entries(JSON.parse(event.data))) replace(name, html);
});
source.addEventListener("over", () => {
  over = true;
  source.close();
  tell("The server has ended; this is its last state.", false);
});
source.addEventListener("error", () => {
  if (!over) tell("Connection lost; trying again …", true);
});

// -- drawing ----------------------------------------------------------------------------------------------------------

const INK = 22; // width of the pen on a canvas of 280: as wide as the strokes of a digit of MNIST
let pending = null;

function prepareCanvas() {
  const canvas = document.getElementById("canvas");
  if (!canvas) return;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  Object.assign(context, {lineWidth: INK, lineCap: "round", lineJoin: "round", strokeStyle: "#fff"});
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    show("…", []);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...place(event));
    context.lineTo(...place(event));
    context.stroke();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons === 0) return;
    context.lineTo(...place(event));
    context.stroke();
  });
  canvas.addEventListener("pointerup", () => canvas.toBlob(ask));
  document.getElementById("clear").addEventListener("click", clear);
  document.getElementById("file").addEventListener("change", (event) => {
    if (event.target.files.length) ask(event.target.files[0]);
  });
  clear();
}

// One question at a time; of those that come meanwhile the last one counts.
async function ask(picture) {
  if (pending !== null) { pending = picture; return; }
  pending = picture;
  while (pending) {
    const asked = pending;
    pending = undefined;
    try {
      const answer = await fetch("/predict", {method: "POST", body: asked, headers: {"Content-Type": "image/png"}});
      const found = await answer.json();
      if (answer.ok) show(found.class, found.scores);
      else show(found.error, []);
    } catch {
      show("The server does not answer.", []);
    }
  }
  pending = null;
}

function show(words, scores) {
  document.getElementById("answer").textContent = words;
  document.getElementById("scores").replaceChildren(...scores.map(([name, share]) => {
    const line = document.createElement("li");
    line.textContent = `${name}: ${(100 * share).toFixed(1)} %`;
    return line;
  }));
}

prepareCanvas();
