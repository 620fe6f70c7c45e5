"use strict";

// Sorting: first the better end first, then the other way round, then as it came. What has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    head.querySelector("button.sort").addEventListener("click", () => {
      const first = head.dataset.better === "↑" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const order = now === null ? first : now === first ? second : null;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (order !== null) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const key = (row) => {
        const cell = row.cells[place];
        if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
        return head.classList.contains("numeric") ? null : cell.textContent.trim();
      };
      const compare = (a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === null || other === null) return (one === null) - (other === null);
        if (typeof one === "string") return sign * one.localeCompare(other);
        return sign * (Number(one > other) - Number(one < other)); // no difference: ∞ − ∞ is no number
      };
      body.append(...(order === null ? original : [...original].sort(compare)));
      const status = document.getElementById("sorted");
      const label = head.textContent.trim();
      if (status) status.textContent = order === null ? "In the run's order" : `Sorted by ${label}, ${order}`;
    });
  });
}

// What a score means, at the pointer or the focus: the glossary's own words.
const tip = document.getElementById("tip");
let shown = null;
const hide = () => { tip.hidden = true; shown = null; };
for (const target of document.querySelectorAll("[aria-describedby^='about-']")) {
  const text = document.getElementById(target.getAttribute("aria-describedby"));
  if (!text) continue;
  const place = () => {
    const box = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - own.width - 8);
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above >= 8 ? above : box.bottom + 8}px`;
  };
  const show = () => {
    tip.textContent = text.textContent;
    tip.hidden = false;
    shown = place;
    place();
  };
  target.addEventListener("mouseenter", show);
  target.addEventListener("focus", show);
  target.addEventListener("mouseleave", hide);
  target.addEventListener("blur", hide);
  if (target.classList.contains("term")) {
    // The glossary is far away: a first press explains in place, a second one goes there.
    target.addEventListener("click", (event) => {
      if (tip.hidden || target.dataset.pressed === undefined) { event.preventDefault(); show(); }
      target.dataset.pressed = "";
    });
    target.addEventListener("blur", () => { delete target.dataset.pressed; });
  }
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
document.addEventListener("scroll", () => { if (shown) shown(); }, { capture: true, passive: true });

for (const button of document.querySelectorAll("button.paper")) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") === "true" ? "false" : "true");
  });
}

// A link into something folded, and paper, show what is folded; further figures of a kind stay as they are on paper.
const unfold = (element) => {
  for (let at = element; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
window.addEventListener("hashchange", () => unfold(document.getElementById(location.hash.slice(1))));
const folded = [];
window.addEventListener("beforeprint", () => {
  const found = [...document.querySelectorAll("details:not([open], .further)")];
  found.forEach((one) => { one.open = true; });
  folded.push(...found);
});
window.addEventListener("afterprint", () => { folded.splice(0).forEach((one) => { one.open = false; }); });
