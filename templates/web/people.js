// Tick everybody on the page at once. The box for it is shown only where this script runs.
const all = document.getElementById("all");
const boxes = [...document.querySelectorAll("[name=ids]")];
function count() {
  const ticked = boxes.filter((box) => box.checked).length;
  all.checked = ticked === boxes.length;
  all.indeterminate = ticked > 0 && ticked < boxes.length;
}
if (all) {
  all.closest("label").hidden = false;
  all.form.addEventListener("change", (event) => {
    if (event.target === all) for (const box of boxes) box.checked = all.checked;
    count();
  });
  // A browser that comes back to the page may remember what was ticked.
  addEventListener("pageshow", count);
}
