/** As gopush.d.ts says, but for a module of ES, which has no default export. */
export * from "./gopush.js";
