"use strict";
(() => {
  const root = document.documentElement;
  const said = document.getElementById("said");
  root.classList.add("js");

  // copying: the clipboard where the browser lets a page from disk use it, else a selected text field
  const copyOld = (text) => {
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("readonly", "");
    field.className = "hidden";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyOld(text);
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const done = await copy(button.dataset.copy);
    button.focus();
    button.textContent = done ? "Copied" : "Not copied";
    said.textContent = done ? `Copied: ${button.dataset.copy}` : "The browser did not allow copying.";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  // filters: groups of radio buttons, their state in the address after #
  const groups = [...document.querySelectorAll("fieldset[data-filter]")];
  const keys = groups.map((group) => group.dataset.filter);
  const chosen = (key) => document.querySelector(`input[name="${key}"]:checked`).value;
  const apply = () => {
    let shown = 0, all = 0;
    for (const item of document.querySelectorAll("[data-item]")) {
      const fits = (key) => !(key in item.dataset) || chosen(key) === "all"
        || item.dataset[key].split(" ").includes(chosen(key));
      item.hidden = !keys.every(fits);
      all += 1;
      shown += item.hidden ? 0 : 1;
    }
    const any = keys.some((key) => chosen(key) !== "all");
    for (const part of document.querySelectorAll("[data-filtered]")) {
      const items = [...part.querySelectorAll("[data-item]")];
      const none = items.length > 0 && items.every((item) => item.hidden);
      const empty = part.querySelector(".empty") || part.nextElementSibling;
      if (empty && empty.classList.contains("empty")) empty.hidden = !none;
      const box = part.querySelector(".scroll");
      if (box && part.matches(".table")) box.hidden = none;
      const details = part.querySelector(":scope > details");
      if (any && details && !none && items.length) details.open = true;
    }
    for (const count of document.querySelectorAll(".count")) {
      count.textContent = `${any ? shown + " of" : "all"} ${all} ${count.dataset.noun} shown`;
    }
  };
  const toAddress = () => {
    const words = keys.filter((key) => chosen(key) !== "all").map((key) => `${key}=${chosen(key)}`);
    history.replaceState(null, "", `#${words.join("&")}`);
  };
  const fromAddress = () => {
    const text = location.hash.slice(1);
    // an address without = is a place on the page: the filters stay
    if (text && !text.includes("=")) return;
    const words = new URLSearchParams(text);
    for (const key of keys) {
      const input = [...document.getElementsByName(key)].find((one) => one.value === (words.get(key) || "all"));
      if (input) input.checked = true;
    }
    apply();
  };
  // a link to a claim opens it
  const openTarget = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const closed = target && target.querySelector(":scope > details");
    if (closed && target.matches(".claim")) closed.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  // tables that can be sorted: a button in each heading, numbers by their size, what is missing last
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    const value = (row, column) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
    };
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const [x, y] = [Number(a), Number(b)];
      return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
    };
    headings.forEach((heading, column) => {
      if ("unsorted" in heading.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          return x === "" || y === "" || up ? compare(x, y) : compare(y, x);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  document.addEventListener("change", (event) => {
    if (keys.includes(event.target.name)) { apply(); toAddress(); }
  });
  window.addEventListener("hashchange", fromAddress);
  apply();
  fromAddress();
})();
