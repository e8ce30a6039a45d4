// What the server cannot do: say whether the page is live, show the lamp in the tab, and put the focus on an answer.

const stream = document.getElementById("stream");
const words = stream.textContent;

function live(on) {
  stream.classList.toggle("on", on);
  stream.classList.toggle("off", !on);
  const said = on ? "Live" : `Not live: ${words}. Trying again.`;
  if (stream.textContent !== said) stream.textContent = said;
}

document.addEventListener("htmx:sse:after:connection", () => live(true));
document.addEventListener("htmx:sse:error", () => live(false));
document.addEventListener("htmx:sse:close", () => live(false));
document.addEventListener("htmx:sse:before:connection", (event) => {
  if (event.detail.connection.attempt > 1) live(false);
});
document.addEventListener("htmx:sse:after:message", () => {
  live(true);
  const answer = document.querySelector("[data-icon]");
  const icon = document.getElementById("icon");
  if (answer && icon.getAttribute("href") !== answer.dataset.icon) icon.setAttribute("href", answer.dataset.icon);
});
document.addEventListener("htmx:after:swap", () => {
  const notice = document.getElementById("notice");
  if (document.activeElement === document.body && notice.firstElementChild) notice.focus();
});
