// The volume of a series in NiiVue, with controls that a keyboard and a finger can work. Without WebGL 2, or without
// the images, the verdict page's picture stays.
const LIBRARY = "/static/vendor/niivue-0.69.0.umd.js";
const AXES = { axial: 2, coronal: 1, sagittal: 0 };
const id = (name) => document.getElementById(name);
let shown = ""; // the address and revision of the volume that is shown

const library = () =>
  new Promise((done, failed) => {
    if (window.niivue) return done();
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = done;
    script.onerror = () => failed(new Error("the viewer did not load"));
    document.head.append(script);
  });

const view = async () => {
  const { volume: url, plane, revision, marks } = id("picture").dataset;
  if (!url || shown === `${url} ${revision}`) return;
  shown = `${url} ${revision}`;
  if (!document.createElement("canvas").getContext("webgl2")) return;
  id("viewer-note").textContent = "The images are being loaded.";
  try {
    const [answer] = await Promise.all([fetch(url), library()]);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    id("viewer").hidden = false;
    await show(await answer.arrayBuffer(), plane, JSON.parse(marks));
    id("viewer-note").textContent = "";
    id("picture").classList.add("replaced");
  } catch (error) {
    id("viewer").hidden = true;
    id("viewer-note").textContent = `The images cannot be shown here: ${error.message}`;
  }
};

let viewer = null;
const show = async (data, plane, marks) => {
  const { Niivue, NVImage, SLICE_TYPE, DRAG_MODE, SHOW_RENDER } = window.niivue;
  viewer ??= await new Niivue({
    backColor: [0, 0, 0, 1],
    isRadiologicalConvention: true, // as the verdict page and every console
    sagittalNoseLeft: true,
    dragAndDropEnabled: false,
    dragMode: DRAG_MODE.contrast,
    multiplanarShowRender: SHOW_RENDER.NEVER,
    crosshairWidth: 0,
    isColorbar: false,
    loadingText: "",
  }).attachToCanvas(id("volume"));
  for (const old of [...viewer.volumes]) viewer.removeVolume(old);
  const volume = await NVImage.loadFromUrl({ url: data, name: "volume.nii.gz" });
  viewer.addVolume(volume);

  const slice = id("slice"), level = id("level"), width = id("width");
  const first = [volume.cal_min, volume.cal_max];
  const [low, high] = [volume.global_min, volume.global_max];
  let axis = 2;

  const step = (high - low) / 100 || 1;
  const showWindow = () => {
    level.value = ((volume.cal_min + volume.cal_max) / 2 - low) / step;
    width.value = (volume.cal_max - volume.cal_min) / step;
  };
  const setWindow = (from, to) => {
    [volume.cal_min, volume.cal_max] = [from, to];
    viewer.updateGLVolume();
  };
  const fromSliders = () => {
    const middle = low + Number(level.value) * step, half = (Number(width.value) * step) / 2;
    setWindow(middle - half, middle + half);
  };
  level.oninput = width.oninput = fromSliders;
  id("whole").onclick = () => {
    setWindow(...first);
    showWindow();
  };

  // The viewer counts to the right, front and top of the patient; the stack's own slices are counted as they were sent.
  const count = () => volume.dimsRAS[axis + 1];
  const ofStack = () => Math.abs(volume.permRAS[axis]) === 3;
  const turned = (number) => (ofStack() && volume.permRAS[axis] < 0 ? count() + 1 - number : number);
  const showSlice = () => {
    slice.max = count();
    slice.value = turned(Math.floor(viewer.scene.crosshairPos[axis] * count()) + 1);
    id("slice-of").textContent = `${slice.value} of ${count()}`;
    id("marks").toggleAttribute("hidden", !ofStack());
    for (const { button, slices } of jumps)
      button.setAttribute("aria-pressed", String(ofStack() && slices.includes(slice.value - 1)));
  };
  const go = (number) => {
    viewer.scene.crosshairPos[axis] = (turned(number) - 0.5) / count();
    viewer.drawScene();
    showSlice();
  };
  slice.oninput = () => go(Number(slice.value));
  viewer.onLocationChange = showSlice;
  viewer.onIntensityChange = showWindow;

  const choose = (name) => {
    const types = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL };
    axis = AXES[name] ?? AXES[plane];
    viewer.setCrosshairWidth(name in AXES ? 0 : 0.5);
    viewer.setSliceType(types[name] ?? SLICE_TYPE.MULTIPLANAR);
    for (const button of document.querySelectorAll("#viewer [data-plane]"))
      button.setAttribute("aria-pressed", String(button.dataset.plane === name));
    showSlice();
  };
  for (const button of document.querySelectorAll("#viewer [data-plane]"))
    button.onclick = () => choose(button.dataset.plane);

  // The slices that carry an artifact: a bar under the slider, and a button each that goes from one to the next.
  const rectangle = (number, row, severity) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const place = { x: number, y: row, width: 1.02, height: 0.8, class: `grade${severity}` };
    for (const [name, value] of Object.entries(place)) bar.setAttribute(name, value);
    return bar;
  };
  const jumps = marks.map(({ artifact, severity, slices, says }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `grade${severity}`;
    button.textContent = `${artifact}: ${says}`;
    button.onclick = () => {
      if (!ofStack()) choose(plane);
      go((slices.find((one) => one >= slice.value) ?? slices[0]) + 1);
    };
    return { button, slices };
  });
  choose(plane);
  id("marks").setAttribute("viewBox", `0 0 ${count()} ${Math.max(1, marks.length)}`);
  id("marks").replaceChildren(
    ...marks.flatMap(({ slices, severity }, row) => slices.map((one) => rectangle(one, row, severity))),
  );
  id("jumps").replaceChildren(...jumps.map(({ button }) => button));
  id("jumps").hidden = !jumps.length;
  if (marks.length) go(marks[0].slices[Math.floor(marks[0].slices.length / 2)] + 1);
  showWindow();
};

view();
document.body.addEventListener("htmx:oobAfterSwap", view);
