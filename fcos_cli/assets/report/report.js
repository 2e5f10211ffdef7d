"use strict";

// Sort a table by clicking a heading: numbers in descending order first, names in ascending order first.
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
      const previous = heading.getAttribute("aria-sort");
      const ascending = previous ? previous === "descending" : column === 0;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: value(row, column) }));
      const dashes = rows.filter(({ key }) => key === "–"); // not measured: always last
      const others = rows.filter(({ key }) => key !== "–").sort((a, b) => (ascending ? 1 : -1) * compare(a.key, b.key));
      table.tBodies[0].append(...[...others, ...dashes].map(({ row }) => row));
    });
  });
}

// Highlight the curves of the selected class.
for (const chooser of document.querySelectorAll("select[data-curves]")) {
  const section = chooser.closest("section");
  const show = () => {
    for (const item of section.querySelectorAll("[data-key]")) {
      const selected = item.dataset.key === chooser.value;
      item.classList.toggle("on", selected);
      if (selected && item.classList.contains("line")) item.parentNode.append(item); // SVG draws later elements on top
    }
    for (const dot of section.querySelectorAll("circle[data-key]")) dot.parentNode.append(dot);
    section.querySelector("[data-summary]").textContent = chooser.selectedOptions[0].dataset.text;
  };
  chooser.addEventListener("change", show);
  show(); // browsers may restore an earlier selection
}

// Image galleries: score threshold and visible layers.
for (const controls of document.querySelectorAll("[data-gallery]")) {
  const gallery = document.getElementById(controls.dataset.gallery);
  const slider = controls.querySelector("input[type=range]");
  const output = controls.querySelector("output");
  const draw = (threshold) => {
    for (const box of gallery.querySelectorAll(".box[data-own]")) {
      const passes = threshold === null ? box.dataset.own === "1" : Number(box.dataset.score) >= threshold;
      if (box.classList.contains("found")) box.classList.toggle("off", !passes);
      else box.classList.toggle("bad", !passes);
    }
    output.textContent = threshold === null ? "model thresholds" : threshold.toFixed(2);
  };
  slider.addEventListener("input", () => draw(Number(slider.value)));
  controls.querySelector("button").addEventListener("click", () => draw(null));
  for (const box of controls.querySelectorAll("input[type=checkbox]")) {
    const apply = () => gallery.classList.toggle(box.dataset.css, box.checked === (box.dataset.when === "on"));
    box.addEventListener("change", apply);
    apply();
  }
}

// With two models, show the details of one at a time.
const owners = [...document.querySelectorAll("input[name=owner]")];
const update = () => {
  const selected = owners.find((input) => input.checked)?.value;
  for (const part of document.querySelectorAll(".owner")) part.hidden = part.dataset.owner !== selected;
};
for (const input of owners) input.addEventListener("change", update);
if (owners.length) update();
