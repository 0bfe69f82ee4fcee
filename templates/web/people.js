// Tick everybody on the page at once. The box for it is shown only where this script runs.
const all = document.getElementById("all");
const boxes = [...document.querySelectorAll("[name=ids]")];
if (all) {
  all.closest("label").hidden = false;
  all.form.addEventListener("change", (event) => {
    if (event.target === all) for (const box of boxes) box.checked = all.checked;
    const ticked = boxes.filter((box) => box.checked).length;
    all.checked = ticked === boxes.length;
    all.indeterminate = ticked > 0 && ticked < boxes.length;
  });
}
