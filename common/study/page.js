"use strict";

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
  for (const twin of document.querySelectorAll(".legend button")) {
    if (twin.dataset.line === button.dataset.line) twin.setAttribute("aria-pressed", String(shown));
  }
  for (const part of document.querySelectorAll(".chart [data-line]")) {
    if (part.dataset.line === button.dataset.line) part.classList.toggle("hidden", !shown);
  }
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => toggle(button));
}
