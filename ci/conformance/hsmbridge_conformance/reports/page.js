// The page is complete without this: here are the filter, and folds that open when something in them is asked for.
"use strict";
(function () {
  const form = document.getElementById("filter");
  const checks = Array.from(document.querySelectorAll(".check"));
  const rows = checks.map((check) =>
    Array.from(check.querySelectorAll(".results tbody > tr"), (row) => ({ row, text: row.textContent.toLowerCase() })));
  const heads = checks.map((check) => check.querySelector("summary").textContent.toLowerCase());
  const weights = ["must", "should", "info"];
  const total = rows.reduce((sum, list) => sum + list.length, 0);

  function apply() {
    const verdicts = new Set(Array.from(form.querySelectorAll("input[name=verdict]:checked"), (box) => box.value));
    const level = form.elements.level.value;
    const subject = form.elements.subject.value;
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    checks.forEach((check, index) => {
      let here = 0;
      for (const { row, text } of rows[index]) {
        const fits = verdicts.has(row.dataset.verdict) &&
          (level === "all" || weights.indexOf(row.dataset.level) <= weights.indexOf(level)) &&
          (subject === "all" || row.dataset.subject === subject) &&
          words.every((word) => text.includes(word) || heads[index].includes(word));
        row.hidden = !fits;
        here += fits;
      }
      check.hidden = here === 0;
      shown += here;
    });
    for (const chapter of document.querySelectorAll(".chapter")) {
      chapter.hidden = !chapter.querySelector(".check:not([hidden])");
    }
    form.elements.shown.value = shown === total ? `${total} results` : `${shown} of ${total} results`;
  }

  function reveal() {
    let target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.closest(".check")) {
      return;
    }
    if (target.closest("[hidden]")) {
      form.reset();
      apply();
    }
    target.closest(".check").open = true;
    target.scrollIntoView();
  }

  form.elements.unfold.addEventListener("click", () => {
    const open = checks.some((check) => !check.hidden && !check.open);
    for (const check of checks) {
      check.open = open;
    }
    form.elements.unfold.textContent = open ? "Fold all" : "Unfold all";
  });
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) {
      fold.open = true;
    }
  });
  form.hidden = false;
  apply();
  reveal();
})();
