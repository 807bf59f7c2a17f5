// Colours on canvases: those of the style sheet, for a light page and for a dark one.

const STAGES = { e: [26, 74], p: [216, 63], d: [158, 62] };
const LIGHT = { text: { e: 74, p: 74, d: 62 }, shared: { e: 53, p: 52, d: 36 }, multimodal: { e: 34, p: 32, d: 21 } };
const DARK = { text: { e: 78, p: 80, d: 70 }, shared: { e: 60, p: 63, d: 45 }, multimodal: { e: 40, p: 42, d: 28 } };
const OTHERS = {
  ink: ["#1c2128", "#e6e9ee"],
  faint: ["#6a7280", "#8d96a5"],
  line: ["#e3e6ea", "#2a303a"],
  wait: ["#a5adb8", "#5b6472"],
  running: ["#3773d1", "#5390ee"],
  waiting: ["#cf3f4f", "#e8606e"],
  good: ["#23936a", "#35b285"],
  late: ["#cf3f4f", "#e8606e"],
  slow: ["#e0a02b", "#e5b354"],
  "arm-a": ["#6a7280", "#8d96a5"],
  "arm-b": ["#8a4fc4", "#b184e6"],
};

const isDark = () => window.matchMedia("(prefers-color-scheme: dark)").matches;

export const colour = (name) => OTHERS[name][isDark() ? 1 : 0];

// Stages by hue, groups by lightness.
export function stageColour(letter, group) {
  const [hue, saturation] = STAGES[letter];
  const shades = isDark() ? DARK : LIGHT;
  return `hsl(${hue} ${saturation}% ${(shades[group] ?? shades.shared)[letter]}%)`;
}
