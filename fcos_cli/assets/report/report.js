"use strict";

// A table is sorted by a click on a heading: numbers first from the greatest, names first from A.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim().replaceAll(",", "");
    const number = Number.parseFloat(text);
    return Number.isNaN(number) || column === 0 ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const rising = before ? before === "descending" : column === 0;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: value(row, column) }));
      const dashes = rows.filter(({ key }) => key === "–"); // nothing was measured: always last
      const others = rows.filter(({ key }) => key !== "–").sort((a, b) => (rising ? 1 : -1) * compare(a.key, b.key));
      table.tBodies[0].append(...[...others, ...dashes].map(({ row }) => row));
    });
  });
}

// One class of the curves stands out.
for (const chooser of document.querySelectorAll("select[data-curves]")) {
  const section = chooser.closest("section");
  const show = () => {
    for (const item of section.querySelectorAll("[data-key]")) {
      const chosen = item.dataset.key === chooser.value;
      item.classList.toggle("on", chosen);
      if (chosen && item.classList.contains("line")) item.parentNode.append(item); // in front of the others
    }
    for (const dot of section.querySelectorAll("circle[data-key]")) dot.parentNode.append(dot);
    section.querySelector("[data-said]").textContent = chooser.selectedOptions[0].dataset.text;
  };
  chooser.addEventListener("change", show);
  show(); // a browser may bring back what was chosen before
}

// Pictures: from which score on detections are drawn, and which layers.
for (const controls of document.querySelectorAll("[data-gallery]")) {
  const gallery = document.getElementById(controls.dataset.gallery);
  const slider = controls.querySelector("input[type=range]");
  const said = controls.querySelector("output");
  const draw = (threshold) => {
    for (const box of gallery.querySelectorAll(".box[data-own]")) {
      const passes = threshold === null ? box.dataset.own === "1" : Number(box.dataset.score) >= threshold;
      if (box.classList.contains("found")) box.classList.toggle("off", !passes);
      else box.classList.toggle("bad", !passes);
    }
    said.textContent = threshold === null ? "model’s thresholds" : threshold.toFixed(2);
  };
  slider.addEventListener("input", () => draw(Number(slider.value)));
  controls.querySelector("button").addEventListener("click", () => draw(null));
  for (const box of controls.querySelectorAll("input[type=checkbox]")) {
    const apply = () => gallery.classList.toggle(box.dataset.css, box.checked === (box.dataset.when === "on"));
    box.addEventListener("change", apply);
    apply();
  }
}

// Two models: the details of one at a time.
const owners = [...document.querySelectorAll("input[name=owner]")];
const choose = () => {
  const chosen = owners.find((input) => input.checked)?.value;
  for (const part of document.querySelectorAll(".owner")) part.hidden = part.dataset.owner !== chosen;
};
for (const input of owners) input.addEventListener("change", choose);
if (owners.length) choose();
