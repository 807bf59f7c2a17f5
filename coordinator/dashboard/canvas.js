// What all drawings share: sharp pixels, labels, and an axis of time that ends at now.

import { colour } from "./colours.js";

export const LABEL_PX = 84;
const STEPS_S = [5, 10, 15, 30, 60, 120];

export function prepare(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  const width = canvas.clientWidth || canvas.parentElement.clientWidth;
  canvas.height = height * ratio;
  canvas.width = width * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = '11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  return { pen, width, height };
}

export function label(pen, text, x, y, { align = "left", tone = "faint" } = {}) {
  pen.fillStyle = colour(tone);
  pen.textAlign = align;
  pen.fillText(text, x, y);
}

// Where a moment lies, and lines at round ones with their times under `bottom`.
export function timeAxis(pen, width, bottom, shownS) {
  const x = (sAgo) => LABEL_PX + (width - LABEL_PX) * (1 - Math.min(sAgo, shownS) / shownS);
  const step = STEPS_S.find((each) => shownS / each <= 8) ?? STEPS_S.at(-1);
  for (let sAgo = 0; sAgo < shownS; sAgo += step) {
    line(pen, colour("line"), [[x(sAgo), 0], [x(sAgo), bottom]]);
    label(pen, sAgo === 0 ? "now" : timeText(sAgo), x(sAgo), bottom + 13, { align: sAgo === 0 ? "right" : "center" });
  }
  return x;
}

export function line(pen, style, points, width = 1) {
  pen.strokeStyle = style;
  pen.lineWidth = width;
  pen.beginPath();
  points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

export function area(pen, style, points, bottom) {
  if (points.length < 2) return;
  pen.globalAlpha = 0.16;
  pen.fillStyle = style;
  pen.beginPath();
  pen.moveTo(points[0][0], bottom);
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.lineTo(points.at(-1)[0], bottom);
  pen.fill();
  pen.globalAlpha = 1;
  line(pen, style, points, 1.5);
}

export const timeText = (s) => (s >= 60 && s % 60 === 0 ? `−${s / 60} min` : `−${s} s`);
export const msText = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s` : `${ms.toFixed(ms >= 10 ? 0 : 1)} ms`);
