(() => {
  const form = document.getElementById("filter");
  const status = document.getElementById("shown");
  const rows = [...document.querySelectorAll("tr[data-verdict]")];
  const chosen = (name) =>
    new Set([...form.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value));
  const apply = () => {
    const verdicts = chosen("verdict");
    const scales = chosen("scale");
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(verdicts.has(row.dataset.verdict) && scales.has(row.dataset.scale));
      shown += !row.hidden;
    }
    for (const section of document.querySelectorAll(".family")) {
      section.classList.toggle("empty", !section.querySelector("tr[data-verdict]:not([hidden])"));
    }
    status.textContent = `${shown} of ${rows.length} claim–scale pairs shown`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
