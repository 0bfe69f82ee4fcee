// Bring the page of an import up to date until the import is over; a link on the page does the same by hand.
async function look() {
  const answer = await fetch(location.href);
  const now = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [bar, next] = [document, now].map((page) => page.querySelector("progress"));
  if (!answer.ok || answer.redirected || !next) return location.reload();
  for (const name of next.getAttributeNames()) bar.setAttribute(name, next.getAttribute(name));
  document.getElementById("standing").textContent = now.getElementById("standing").textContent;
  setTimeout(lookAgain, 1000);
}
function lookAgain() {
  look().catch(() => setTimeout(lookAgain, 5000));
}
setTimeout(lookAgain, 1000);
