// Returns every visible text whose contrast is below WCAG AA, in each of the page's accents.
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)).concat(1);
  const over = ([r, g, b, a], under) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a)).concat(1);
  const channel = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ratio = (one, two) => {
    const [light, dark] = [luminance(one), luminance(two)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };

  // The masthead is a gradient between two colours under a faint light: both ends must do.
  function grounds(element) {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      if (node.classList.contains("masthead")) {
        const root = getComputedStyle(document.documentElement);
        const [deep, accent] = ["--accent-deep", "--accent"].map((name) => hex(root.getPropertyValue(name).trim()));
        return [deep, over([255, 255, 255, 0.09], accent)].map((base) => layers.reduceRight((under, layer) => over(layer, under), base));
      }
      const layer = parse(getComputedStyle(node).backgroundColor);
      layers.push(layer);
      if (layer[3] === 1) break;
    }
    return [layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255, 1])];
  }

  function opacity(element) {
    let value = 1;
    for (let node = element; node; node = node.parentElement) value *= Number(getComputedStyle(node).opacity);
    return value;
  }

  function faults(element) {
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const color = parse(style.color);
    color[3] *= opacity(element);
    const worst = Math.min(...grounds(element).map((ground) => ratio(over(color, ground), ground)));
    return worst < needed ? [`${document.documentElement.dataset.accent}: ${element.textContent.trim()}: ${worst.toFixed(2)}`] : [];
  }

  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const texts = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() && hasText(element));
  if (texts.length < 10) return ["too few texts were found"];
  const before = document.documentElement.dataset.accent;
  const found = [];
  for (const accent of ["0", "1", "2", "3", "4", "5"]) {
    document.documentElement.dataset.accent = accent;
    found.push(...texts.flatMap(faults));
  }
  document.documentElement.dataset.accent = before;
  return found;
}
