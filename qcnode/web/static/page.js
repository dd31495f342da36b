// What every page does beyond htmx: it leaves alone what did not change, says when it is out of touch, and beeps.
// A part that is the same stays as it is: nothing is read out twice, no focus or selection is lost.
document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
  const { target, fragment } = event.detail;
  const next = fragment.firstElementChild;
  if (next && target.isEqualNode(next)) event.detail.shouldSwap = false;
});

// An old page must not look like a live one.
const lost = document.getElementById("lost");
const outOfTouch = () => {
  if (!lost.textContent)
    lost.textContent = `The node does not answer. What you see is as it was at ${new Date().toLocaleTimeString()}.`;
};
document.body.addEventListener("htmx:sseError", outOfTouch);
document.body.addEventListener("htmx:sendError", outOfTouch);
document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status >= 500) outOfTouch();
});
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) lost.textContent = "";
});

// A rescan is heard once, where a person asked for sound; browsers allow it after a first touch or key only.
const sound = document.getElementById("sound");
const alarm = () => Number(document.getElementById("alarm").dataset.newest);
let audio = null;
const wanted = () => localStorage.getItem("sound") === "on";
const show = () => {
  sound.hidden = false;
  sound.setAttribute("aria-pressed", String(wanted()));
  sound.textContent = wanted() ? "Sound is on" : "Sound is off";
};
const ready = () => {
  audio ??= new AudioContext();
  return audio.resume();
};
const beep = () => {
  for (const [start, hertz] of [[0, 880], [0.22, 660], [0.44, 880]]) {
    const tone = new OscillatorNode(audio, { frequency: hertz });
    const volume = new GainNode(audio, { gain: 0.25 });
    tone.connect(volume).connect(audio.destination);
    tone.start(audio.currentTime + start);
    tone.stop(audio.currentTime + start + 0.18);
  }
};
const listen = () => {
  const newest = alarm();
  const heard = Number(sessionStorage.getItem("heard") ?? newest);
  sessionStorage.setItem("heard", String(Math.max(heard, newest)));
  if (newest > heard && wanted()) ready().then(beep);
};
if (sound) {
  show();
  listen();
  sound.addEventListener("click", () => {
    localStorage.setItem("sound", wanted() ? "off" : "on");
    show();
    if (wanted()) ready().then(beep);
  });
  document.body.addEventListener("htmx:oobAfterSwap", listen);
  if (wanted()) for (const touch of ["pointerdown", "keydown"]) addEventListener(touch, () => ready(), { once: true });
}
