"use strict";
(() => {
  const overview = document.querySelector("#overview");
  const place = document.querySelector("#task");
  // Inside the report of Snakemake, Vega is the one that it has itself.
  const embed = window.vegaEmbed ?? parent.vegaEmbed;

  // Vega's own tooltip would be put into the document that Vega is of.
  const tip = document.body.appendChild(document.createElement("dl"));
  tip.id = "tip";
  tip.hidden = true;
  function tell(handler, event, item, value) {
    tip.hidden = !value;
    if (!value) return;
    const known = Object.entries(value).filter(([, text]) => text !== "null");
    tip.replaceChildren(...known.flatMap((pair) => pair.map((text, n) => {
      const part = document.createElement(n ? "dd" : "dt");
      part.textContent = text;
      return part;
    })));
    tip.style.left = Math.max(0, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(0, Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8)) + "px";
  }

  // Plots are drawn when they are first shown: a hidden one has no width.
  function draw(root) {
    for (const chart of root.querySelectorAll(".chart:not([data-state])")) {
      chart.dataset.state = "drawing";
      const spec = JSON.parse(chart.querySelector("script").textContent);
      embed(chart, spec, { actions: false, renderer: "svg", tooltip: tell }).then(
        () => { chart.dataset.state = "drawn"; },
        (error) => { chart.dataset.state = "failed"; console.error(error); },
      );
    }
  }

  async function unpack(packed) {
    const binary = atob(packed), bytes = new Uint8Array(binary.length);
    for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  async function show(name) {
    const packed = name && document.getElementById("page-" + name);
    if (packed) {
      place.innerHTML = await unpack(packed.textContent);
    } else {
      place.replaceChildren();
    }
    tip.hidden = true;
    overview.hidden = Boolean(packed);
    place.hidden = !packed;
    if (packed) {
      for (const table of place.querySelectorAll("table.sortable")) sortable(table);
      place.querySelector("h1").focus();
    }
    draw(packed ? place : overview);
    scrollTo(0, 0);
    if (parent !== window && window.frameElement) frameElement.scrollIntoView();
  }

  // Inside the report of Snakemake the page has no address of its own, so there the history keeps the name alone.
  const inside = window.frameElement !== null || location.protocol === "data:" || location.protocol === "about:";
  addEventListener("popstate", (event) => show(event.state ? event.state.name : decodeURIComponent(location.hash.slice(1))));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const name = link.dataset.page;
    try { history.pushState({ name }, "", inside ? undefined : "#" + name); } catch { /* no history here */ }
    show(name);
  });

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !head.classList.contains("number"));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => ({ row, value: row.cells[column].dataset.value ?? row.cells[column].textContent }));
      const known = ({ value }) => value !== "" && value !== "-";
      rows.sort((a, b) => {
        if (known(a) !== known(b)) return known(a) ? -1 : 1;
        const order = head.classList.contains("number") ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value);
        return up ? order : -order;
      });
      body.append(...rows.map(({ row }) => row));
    }));
  }

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  const text = document.querySelector("#filter-text"), status = document.querySelector("#filter-status");
  function filter() {
    let shown = 0;
    for (const row of document.querySelector("#tasks").tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(text.value.trim().toLowerCase())
        || (status.value !== "" && row.dataset.status !== status.value);
      shown += !row.hidden;
    }
    document.querySelector("#filter-count").textContent = shown + " shown";
  }
  if (text) { text.addEventListener("input", filter); status.addEventListener("change", filter); }

  show(inside ? "" : decodeURIComponent(location.hash.slice(1)));
})();
