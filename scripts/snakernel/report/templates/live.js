"use strict";
(() => {
  const box = document.querySelector("#reload");
  if (!box) return;
  // A page that was told to stay as it is stays so until it is told otherwise.
  if (location.hash === "#still") box.checked = false;
  box.addEventListener("change", () => { location.hash = box.checked ? "" : "still"; });
  setInterval(() => { if (box.checked) location.reload(); }, 1000 * Number(box.dataset.seconds));
})();
