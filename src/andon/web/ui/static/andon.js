// What the server cannot do: say whether the page is live, show the lamp in the tab, and put the focus on an answer.

const stream = document.getElementById("stream");
const words = stream.textContent;

function say(state, text) {
  stream.className = `stream ${state}`;
  if (stream.textContent !== text) stream.textContent = text;
}

function lost(status) {
  say("off", status === 401 ? "Logged out: log in again with a new link" : `Not live, ${words}. Trying again.`);
}

document.addEventListener("htmx:sse:after:connection", () => say("on", "Live"));
document.addEventListener("htmx:sse:error", (event) => lost(event.detail.status));
document.addEventListener("htmx:sse:close", () => lost());
document.addEventListener("htmx:sse:after:message", () => {
  say("on", "Live");
  const lamp = document.querySelector("[data-icon]").dataset.icon;
  const icon = document.getElementById("icon");
  if (icon.getAttribute("href") !== lamp) icon.setAttribute("href", lamp);
});

const notice = document.getElementById("notice");
let told = notice.textContent;
document.addEventListener("htmx:after:swap", () => {
  if (notice.textContent === told) return;
  told = notice.textContent;
  if (notice.firstElementChild) notice.focus();
});
