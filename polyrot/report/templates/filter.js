(() => {
  const form = document.getElementById("filter");
  const status = document.getElementById("shown");
  const sorted = document.getElementById("sorted");
  const rows = [...document.querySelectorAll("tr[data-verdict]")];
  const homes = new Map(rows.map((row) => [row, row.parentElement]));
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const names = [...new Set(boxes.map((box) => box.name))];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const places = (name) => new Map(boxes.filter((b) => b.name === name).map((b, i) => [b.value, i]));
  const order = Object.fromEntries(names.map((name) => [name, places(name)]));

  const chosen = (name) => boxes.filter((b) => b.name === name && b.checked).map((b) => b.value);

  const read = () => {
    const asked = new URLSearchParams(location.search);
    for (const box of boxes) {
      box.checked = (asked.get(box.name) || "").split(",").includes(box.value);
    }
    form.elements.q.value = asked.get("q") || "";
    form.elements.sort.value = asked.get("sort") || "";
    if (form.elements.sort.selectedIndex < 0) form.elements.sort.value = "";
    const families = form.querySelector(".families");
    families.open ||= chosen("family").length > 0;
  };

  const keep = () => {
    const asked = names.map((name) => [name, chosen(name).map(encodeURIComponent).join(",")]);
    asked.push(["q", encodeURIComponent(form.elements.q.value.trim())]);
    asked.push(["sort", form.elements.sort.value]);
    const query = asked.filter(([, value]) => value).map(([name, value]) => `${name}=${value}`);
    const search = query.length ? `?${query.join("&")}` : "";
    if (search !== location.search) {
      history.replaceState(null, "", location.pathname + search + location.hash);
    }
  };

  const place = (by) => {
    const key = (row) => (by === "claim" ? 0 : order[by].get(row.dataset[by]));
    const arranged = by
      ? [...rows].sort(
          (a, b) => key(a) - key(b) || a.dataset.claim.localeCompare(b.dataset.claim),
        )
      : rows;
    const flat = sorted.querySelector("tbody");
    for (const row of arranged) (by ? flat : homes.get(row)).append(row);
    sorted.hidden = !by;
    document.getElementById("claims").classList.toggle("flat", Boolean(by));
  };

  const apply = () => {
    const wanted = names.map((name) => [name, new Set(chosen(name))]).filter(([, s]) => s.size);
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(
        wanted.every(([name, values]) => values.has(row.dataset[name])) &&
        words.every((word) => texts.get(row).includes(word))
      );
      shown += !row.hidden;
    }
    place(form.elements.sort.value);
    for (const section of document.querySelectorAll(".family")) {
      section.classList.toggle("empty", !section.querySelector("tr[data-verdict]:not([hidden])"));
    }
    const by = [...wanted.flatMap(([, values]) => [...values]), ...words.map((word) => `“${word}”`)];
    const chosenBy = by.length ? `: ${by.join(", ")}` : "";
    status.textContent = `${shown} of ${rows.length} shown (a claim at one scale each)${chosenBy}`;
    form.classList.toggle("narrowed", by.length > 0);
  };

  // what a link leads to is shown, whatever hides it
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let up = target.closest("details"); up; up = up.parentElement.closest("details")) {
      up.open = true;
    }
    if (target.hidden) {
      form.reset();
      keep();
      apply();
    }
    target.scrollIntoView();
  };

  const change = () => {
    keep();
    apply();
  };
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(change));
  addEventListener("hashchange", reveal);
  addEventListener("popstate", () => {
    read();
    apply();
  });
  form.hidden = false;
  read();
  apply();
  if (location.hash) reveal();
})();
