const $ = id => document.getElementById(id), table = $("rows"), bodies = [...table.tBodies];
function show() {
  const find = $("find").value.toLowerCase(), state = $("state").value;
  for (const body of bodies)
    body.hidden = !(body.textContent.toLowerCase().includes(find) && (!state || body.dataset.state === state));
  $("shown").textContent = `${bodies.filter(body => !body.hidden).length} of ${bodies.length} models shown`;
}
function order() {
  const by = $("order").value, value = body => body.dataset[by] === "" ? -1 : +body.dataset[by];
  const sorted = by === "" ? bodies : by === "model" ? [...bodies].sort((a, b) => a.dataset.model.localeCompare(b.dataset.model))
    : [...bodies].sort((a, b) => value(b) - value(a));
  table.append(...sorted);
}
$("find").addEventListener("input", show);
$("state").addEventListener("input", show);
$("order").addEventListener("input", order);
$("controls").addEventListener("submit", event => event.preventDefault());
$("controls").hidden = false;
