import "./gopush.js";

export const { subscribe } = globalThis.gopush;
