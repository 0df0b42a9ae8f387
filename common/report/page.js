"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// A column's sort key: the cell's data-value as a number, else its text; cells without a value come last.
function key(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  if (value === undefined) return cell.textContent.trim();
  return value === "" ? null : Number(value);
}

function compare(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
}

function sortBy(header) {
  const table = header.closest("table");
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const body = table.tBodies[0];
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((row) => [key(row, header.cellIndex), row]);
  rows.sort(([one], [other]) => (one === null || other === null ? 1 : sign) * compare(one, other));
  for (const [, row] of rows) body.append(row);
}

function toggle(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  const same = `[data-series="${button.dataset.series}"]`;
  for (const twin of all(`button${same}`)) twin.setAttribute("aria-pressed", String(shown));
  for (const part of all(`.plot ${same}`)) part.classList.toggle("hidden", !shown);
}

// The episodes of a page that has any: a slider moves through the frames of the shift that is shown.
function scrub(episodes) {
  const slider = document.getElementById("frame");
  const play = document.getElementById("play");
  const now = document.getElementById("now");
  const sections = all("section[data-shift]");
  const sprites = new Map();
  let section = null;
  let timer = null;

  // The decoded pictures of a panel, asked for when its shift is first shown.
  function sprite(canvas, row) {
    if (!sprites.has(canvas)) {
      const found = row[canvas.dataset.column];
      const image = new Image();
      image.addEventListener("load", draw);
      image.src = found.source;
      canvas.width = found.width;
      canvas.height = found.height;
      sprites.set(canvas, image);
    }
    return sprites.get(canvas);
  }

  function draw() {
    const { steps, across, rows } = episodes[section.dataset.shift];
    const frame = Number(slider.value);
    now.textContent = `step ${steps[frame]}`;
    for (const canvas of all("canvas", section)) {
      const image = sprite(canvas, rows[canvas.dataset.row]);
      if (!image.complete) continue;
      const { width, height } = canvas;
      const left = (frame % across) * width;
      const top = Math.floor(frame / across) * height;
      canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
    }
    // A plot's axes span exactly the steps of the frames.
    for (const plot of all(".plot", section)) mark(plot, steps[frame] / (steps.at(-1) || 1));
  }

  function mark(plot, share) {
    const area = plot.querySelector(".area").getBBox();
    let cursor = plot.querySelector(".cursor");
    if (cursor === null) {
      cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
      cursor.setAttribute("class", "cursor");
      plot.append(cursor);
    }
    const x = area.x + share * area.width;
    const ends = { x1: x, x2: x, y1: area.y, y2: area.y + area.height };
    for (const [name, value] of Object.entries(ends)) cursor.setAttribute(name, value);
  }

  function show(shift) {
    for (const each of sections) each.classList.toggle("hidden", each.dataset.shift !== shift);
    for (const button of all("button[data-shift]")) {
      button.setAttribute("aria-pressed", String(button.dataset.shift === shift));
    }
    section = sections.find((each) => each.dataset.shift === shift);
    slider.max = episodes[shift].steps.length - 1;
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function advance() {
    slider.value = Number(slider.value) === Number(slider.max) ? 0 : Number(slider.value) + 1;
    draw();
  }

  slider.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    play.textContent = "Pause";
    timer = setInterval(advance, 100);
  });
  for (const button of all("button[data-shift]")) button.addEventListener("click", () => show(button.dataset.shift));
  show(sections[0].dataset.shift);
}

for (const button of all("th button")) button.addEventListener("click", () => sortBy(button.closest("th")));
for (const button of all("button[data-series]")) button.addEventListener("click", () => toggle(button));
const data = document.getElementById("data");
if (data !== null) scrub(JSON.parse(data.textContent));
