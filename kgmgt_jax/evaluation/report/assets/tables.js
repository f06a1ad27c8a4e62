"use strict";
// Tables that sort, the choice of scores, and the theme.
(() => {
  function value(row, column) {
    const text = row.children[column].dataset.value;
    return text === "" ? null : text;
  }

  function compare(a, b, numeric) {
    if (a === null || b === null) return (a === null) - (b === null); // unknown ones last
    return numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
  }

  function sort(head) {
    const table = head.closest("table");
    const order = head.dataset.order;
    const first = order === "max" ? "descending" : "ascending"; // best first
    const second = order === "max" ? "ascending" : "descending";
    const direction = head.getAttribute("aria-sort") === first ? second : first;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    const column = head.cellIndex, body = table.tBodies[0], sign = direction === "ascending" ? 1 : -1;
    const rows = Array.from(body.rows).sort((r, s) => {
      const a = value(r, column), b = value(s, column);
      return a === null || b === null ? compare(a, b) : sign * compare(a, b, order !== "text");
    });
    body.append(...rows);
  }

  for (const head of document.querySelectorAll("table.sortable th[aria-sort]")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }

  const view = document.getElementById("view");
  function show() {
    for (const block of document.querySelectorAll(".view")) block.hidden = block.dataset.view !== view.value;
    document.dispatchEvent(new CustomEvent("viewchange", { detail: view.value }));
  }
  if (view.options.length) {
    document.getElementById("viewbar").hidden = view.options.length < 2;
    view.addEventListener("change", show);
    show();
  }

  const theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const isDark = () => (chosen === null ? dark.matches : chosen === "dark");
  function label() {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  }
  theme.addEventListener("click", () => {
    chosen = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    label();
  });
  dark.addEventListener("change", label);
  theme.hidden = false;
  label();
})();
