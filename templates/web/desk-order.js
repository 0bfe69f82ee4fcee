// Stories are put in order: dragged by their numbers, or moved by Alt with an arrow there or at a button beside them.
const cards = [...document.querySelectorAll(".card")];
let dragged = null;
for (const card of cards) {
  const number = card.querySelector(".number");
  number.draggable = true;
  number.tabIndex = 0;
  number.title = "Drag it, or press Alt with ↑ or ↓";
  number.removeAttribute("aria-hidden");
  number.setAttribute("role", "button");
  number.setAttribute("aria-label", `Story ${card.dataset.place}: drag it, or press Alt with the arrows`);
  number.addEventListener("dragstart", (event) => {
    dragged = card;
    card.classList.add("held");
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", card.dataset.page);
    event.dataTransfer.setDragImage(card, 20, 20);
  });
  number.addEventListener("dragend", () => {
    dragged = null;
    for (const each of cards) each.classList.remove("held", "over");
  });
  card.addEventListener("dragover", (event) => {
    if (!dragged || dragged === card) return;
    event.preventDefault();
    for (const each of cards) each.classList.toggle("over", each === card);
  });
  card.addEventListener("drop", (event) => {
    if (!dragged || dragged === card) return;
    event.preventDefault();
    const form = dragged.querySelector("form.doing");
    form.elements.to.value = card.dataset.place;
    const move = document.createElement("button");
    move.name = "what";
    move.value = "move";
    move.hidden = true;
    form.append(move);
    form.requestSubmit(move);
  });
  card.querySelector(".bar").addEventListener("keydown", (event) => {
    // In a field they open it, or move in what is written.
    if (!event.target.closest(".number, button")) return;
    if (event.target === number && ["Enter", " "].includes(event.key)) {
      event.preventDefault();
      card.querySelector(".doing select").focus();
    }
    const way = event.altKey && { ArrowUp: "up", ArrowDown: "down" }[event.key];
    const button = way && card.querySelector(`.doing [value=${way}]`);
    if (!button || button.disabled) return;
    event.preventDefault();
    goOnAt(card, "");
    button.form.requestSubmit(button);
  });
}
// The keyboard stays with the story that was moved, and with the button that moved it.
function goOnAt(card, what) {
  sessionStorage.setItem("desk goes on at", JSON.stringify([card.dataset.page, what]));
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".card .doing button");
  if (button) goOnAt(button.closest(".card"), button.value);
});
const [moved, by] = JSON.parse(sessionStorage.getItem("desk goes on at")) ?? [];
sessionStorage.removeItem("desk goes on at");
const there = moved && cards.find((card) => card.dataset.page === moved);
if (there) {
  there.classList.add("moved");
  // Later than the browser's own jump to what the address names.
  addEventListener("load", () => {
    const button = by && there.querySelector(`.doing [value=${by}]:enabled`);
    (button || there.querySelector(".number")).focus({ preventScroll: true });
    there.scrollIntoView({ block: "start" });
  });
}
