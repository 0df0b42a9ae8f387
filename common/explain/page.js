"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("frame");
const now = document.getElementById("now");
const play = document.getElementById("play");
const FRAME_MILLISECONDS = 100;
let shift = Object.keys(data)[0];
let timer = null;

const sections = Object.fromEntries([...document.querySelectorAll("section[data-shift]")].map((s) => [s.dataset.shift, s]));
const sprites = new Map();

// The decoded pictures of a panel, asked for when its shift is first shown.
function sprite(canvas) {
  if (!sprites.has(canvas)) {
    const found = data[shift].rows[canvas.dataset.row][canvas.dataset.column];
    const image = new Image();
    image.src = found.source;
    image.addEventListener("load", draw);
    canvas.width = found.width;
    canvas.height = found.height;
    sprites.set(canvas, image);
  }
  return sprites.get(canvas);
}

function draw() {
  const { steps, across } = data[shift];
  const frame = Number(slider.value);
  now.textContent = `step ${steps[frame]}`;
  for (const canvas of sections[shift].querySelectorAll("canvas")) {
    const image = sprite(canvas);
    if (!image.complete) continue;
    const { width, height } = canvas;
    const left = (frame % across) * width;
    const top = Math.floor(frame / across) * height;
    canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
  }
  for (const chart of sections[shift].querySelectorAll("svg.chart")) mark(chart, frame);
}

// A vertical line through the curve's point of this frame.
function mark(chart, frame) {
  const curve = chart.querySelector("polyline");
  if (curve === null) return;
  let line = chart.querySelector("line.now");
  if (line === null) {
    line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    line.setAttribute("class", "now");
    line.setAttribute("y1", "20");
    line.setAttribute("y2", "194");
    chart.append(line);
  }
  const { x } = curve.points.getItem(frame);
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}

function show(chosen) {
  shift = chosen;
  for (const [name, section] of Object.entries(sections)) section.classList.toggle("hidden", name !== shift);
  for (const button of document.querySelectorAll("button[data-shift]")) {
    button.setAttribute("aria-pressed", String(button.dataset.shift === shift));
  }
  slider.max = data[shift].steps.length - 1;
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
  timer = setInterval(advance, FRAME_MILLISECONDS);
});
for (const button of document.querySelectorAll("button[data-shift]")) {
  button.addEventListener("click", () => show(button.dataset.shift));
}
show(shift);
