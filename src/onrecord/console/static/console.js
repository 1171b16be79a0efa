"use strict";

// Filters lie open where there is room beside the list.
for (const filters of document.querySelectorAll("[data-open-wide]")) {
  filters.open = matchMedia("(min-width: 52.01rem)").matches;
}

// "/" leads to the search box; up and down (or k and j) lead through the calls once one has focus.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  const search = document.getElementById("search");
  if (event.key === "/" && search && !typing) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const row = event.target.closest(".calls tbody tr");
  if (!step || !row) return;
  const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
  if (next) {
    event.preventDefault();
    next.querySelector("a").focus();
  }
});

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it by hand";
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  });
}

const LIVE_MS = 3000;
const MOST_ROWS = 200;

// New calls come in at the top of the list; what one reads or has chosen stays where it is.
function keepLive(table, box, said) {
  async function look() {
    if (!box.checked || document.hidden) return;
    let answer;
    try {
      answer = await fetch(location.href, { headers: { accept: "text/html" } });
    } catch {
      said.textContent = "The server cannot be reached; trying again.";
      return;
    }
    if (!answer.ok || answer.redirected) {
      box.checked = false;
      said.textContent = "The list is not live any more: load the page again.";
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const newest = table.tBodies[0].rows[0]?.dataset.id ?? "";
    const rows = [...page.querySelectorAll(".calls tbody tr")].filter((row) => row.dataset.id > newest);
    for (const row of rows.reverse()) {
      row.classList.add("new");
      table.tBodies[0].prepend(row);
    }
    while (table.tBodies[0].rows.length > MOST_ROWS) table.tBodies[0].lastElementChild.remove();
    if (rows.length) said.textContent = rows.length === 1 ? "1 new call" : `${rows.length} new calls`;
  }
  setInterval(look, LIVE_MS);
}

const live = document.querySelector("table[data-live='']");
const choice = document.querySelector("[data-live-switch]");
if (live && choice) {
  choice.hidden = false;
  keepLive(live, choice.querySelector("input"), document.querySelector("[data-live-said]"));
}
